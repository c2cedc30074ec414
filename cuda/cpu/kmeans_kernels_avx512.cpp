#define S3D_LEVEL 2
#include "kmeans_kernels.inl"
