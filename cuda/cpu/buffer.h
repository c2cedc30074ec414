// A grow-only array without initialisation, aligned to cache lines. Kept between calls: a fit asks for the same sizes
// thousands of times, and fresh pages from the system cost more than the work done in them.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

namespace scene3d {

template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }
  Buffer(Buffer&& other) noexcept : data_(other.data_), capacity_(other.capacity_) {
    other.data_ = nullptr;
    other.capacity_ = 0;
  }
  ~Buffer() { std::free(data_); }

  // Room for n items; what was there before is lost when it has to grow.
  T* reserve(size_t n) {
    if (n > capacity_) {
      std::free(data_);
      data_ = nullptr;
      capacity_ = 0;
      data_ = allocate(n + n / 4);
      capacity_ = n + n / 4;
    }
    return data_;
  }

  // Room for n items; the first `used` are kept.
  T* extend(size_t n, size_t used) {
    if (n > capacity_) {
      const size_t capacity = n + n / 2;
      T* fresh = allocate(capacity);
      for (size_t i = 0; i < used; i++) fresh[i] = data_[i];
      std::free(data_);
      data_ = fresh;
      capacity_ = capacity;
    }
    return data_;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  size_t capacity() const { return capacity_; }

 private:
  static T* allocate(size_t n) {
    const size_t bytes = (n * sizeof(T) + 63) / 64 * 64;
    void* p = std::aligned_alloc(64, bytes ? bytes : 64);
    if (!p) throw std::bad_alloc();
    return static_cast<T*>(p);
  }

  T* data_ = nullptr;
  size_t capacity_ = 0;
};

}  // namespace scene3d
