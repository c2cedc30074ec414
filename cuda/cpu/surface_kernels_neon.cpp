#define S3D_LEVEL 3
#include "surface_kernels.inl"
