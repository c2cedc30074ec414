#define S3D_LEVEL 2
#include "surface_kernels.inl"
