#define S3D_LEVEL 2
#include "kernels.inl"
