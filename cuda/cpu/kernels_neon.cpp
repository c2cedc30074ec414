#define S3D_LEVEL 3
#include "kernels.inl"
