#define S3D_LEVEL 1
#include "kernels.inl"
