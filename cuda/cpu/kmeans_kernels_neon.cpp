#define S3D_LEVEL 3
#include "kmeans_kernels.inl"
