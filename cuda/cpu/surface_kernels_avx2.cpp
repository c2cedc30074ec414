#define S3D_LEVEL 1
#include "surface_kernels.inl"
