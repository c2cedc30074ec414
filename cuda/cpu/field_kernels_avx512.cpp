#define S3D_LEVEL 2
#include "field_kernels.inl"
