// A range coder (Martin 1979, carries as in LZMA) for binary decisions and equally likely choices. Integers only: every
// machine writes the same bytes.
//
// Encoder and Decoder have the same methods, each returns what was coded: a codec written once as a template on the coder
// cannot read other than what it writes. A Decoder past its end reads zeros, and the Encoder leaves trailing zeros out.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace scene3d {

class Encoder {
 public:
  static constexpr bool kEncodes = true;

  // p: probability that bit is 1, of 65536, in 1..65535.
  int bit(int bit, uint32_t p) {
    const uint32_t bound = (range_ >> 16) * p;
    if (bit) {
      range_ = bound;
    } else {
      low_ += bound;
      range_ -= bound;
    }
    while (range_ < (1u << 24)) range_ <<= 8, shift();
    return bit;
  }

  // One of n equally likely values, n in 1..65536.
  uint32_t uniform(uint32_t value, uint32_t n) {
    range_ /= n;
    low_ += static_cast<uint64_t>(value) * range_;
    while (range_ < (1u << 24)) range_ <<= 8, shift();
    return value;
  }

  std::vector<uint8_t> finish() {
    for (int i = 0; i < 5; i++) shift();
    size_t n = bytes_.size();
    while (n && bytes_[n - 1] == 0) n--;
    bytes_.resize(n);
    return std::move(bytes_);
  }

 private:
  void shift() {
    if (low_ < 0xFF000000u || low_ >> 32) {
      const uint8_t carry = static_cast<uint8_t>(low_ >> 32);
      if (!is_first_) bytes_.push_back(static_cast<uint8_t>(held_ + carry));
      is_first_ = false;
      for (; n_pending_; n_pending_--) bytes_.push_back(static_cast<uint8_t>(0xFF + carry));
      held_ = static_cast<uint8_t>(low_ >> 24);
    } else {
      n_pending_++;
    }
    low_ = (low_ & 0x00FFFFFFu) << 8;
  }

  uint64_t low_ = 0;
  uint32_t range_ = 0xFFFFFFFFu;
  uint8_t held_ = 0;
  bool is_first_ = true;
  uint64_t n_pending_ = 0;
  std::vector<uint8_t> bytes_;
};

class Decoder {
 public:
  static constexpr bool kEncodes = false;

  Decoder(const uint8_t* data, size_t size) : data_(data), end_(data + size) {
    for (int i = 0; i < 4; i++) code_ = code_ << 8 | next();
  }

  int bit(int, uint32_t p) {
    const uint32_t bound = (range_ >> 16) * p;
    const int bit = code_ < bound;
    if (bit) {
      range_ = bound;
    } else {
      code_ -= bound;
      range_ -= bound;
    }
    while (range_ < (1u << 24)) range_ <<= 8, code_ = code_ << 8 | next();
    return bit;
  }

  uint32_t uniform(uint32_t, uint32_t n) {
    range_ /= n;
    uint32_t value = code_ / range_;
    if (value >= n) value = n - 1;  // only bytes that no encoder wrote
    code_ -= value * range_;
    while (range_ < (1u << 24)) range_ <<= 8, code_ = code_ << 8 | next();
    return value;
  }

 private:
  uint8_t next() { return data_ < end_ ? *data_++ : 0; }

  const uint8_t *data_, *end_;
  uint32_t range_ = 0xFFFFFFFFu, code_ = 0;
};

}  // namespace scene3d
