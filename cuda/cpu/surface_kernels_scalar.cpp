#define S3D_LEVEL 0
#include "surface_kernels.inl"
