#define S3D_LEVEL 0
#include "field_kernels.inl"
