#define S3D_LEVEL 3
#include "field_kernels.inl"
