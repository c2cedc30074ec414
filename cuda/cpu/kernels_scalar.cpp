#define S3D_LEVEL 0
#include "kernels.inl"
