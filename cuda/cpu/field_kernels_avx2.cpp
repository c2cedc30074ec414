#define S3D_LEVEL 1
#include "field_kernels.inl"
