#define S3D_LEVEL 1
#include "kmeans_kernels.inl"
