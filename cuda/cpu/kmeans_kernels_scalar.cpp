#define S3D_LEVEL 0
#include "kmeans_kernels.inl"
