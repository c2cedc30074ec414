// Probabilities of binary decisions: adaptive counters under several contexts, mixed in the logistic domain by weights
// that learn online (Mahoney 2005). Integers only, so that encoder and decoder agree on every machine.
//
// Probabilities are of 65536; logits in units of 1/256, within +-kMaxLogit.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

namespace scene3d {

constexpr int kMaxLogit = 2815;  // ln(p / (1 - p)) of +-11, the finest that 16 bits can tell

struct LogisticTables {
  uint16_t squash[2 * kMaxLogit + 1];  // logit -> probability
  int16_t stretch[4096];               // probability / 16 -> logit
  int32_t rate[1024];                  // number seen -> 32768 / (number + 1.5)
  uint8_t pace[256];                   // number seen -> how fast weights learn, below 128: errors fit 16 bits

  LogisticTables() {
    // e^(-x / 256) of 2^31, by repeated multiplication with e^(-1/256): no floating point, so no machine's own rounding.
    constexpr uint64_t kOne = uint64_t{1} << 31, kDecay = 4278222805u;  // of 2^32
    uint64_t power = kOne;
    for (int x = 0; x <= kMaxLogit; x++) {
      const uint64_t p = (65536 * kOne + (kOne + power) / 2) / (kOne + power);
      const uint64_t clamped = p > 65535 ? 65535 : p;
      squash[kMaxLogit + x] = static_cast<uint16_t>(clamped);
      squash[kMaxLogit - x] = static_cast<uint16_t>(65536 - clamped);
      power = power * kDecay >> 32;
    }
    int x = -kMaxLogit;
    for (int i = 0; i < 4096; i++) {
      const int p = 16 * i + 8;
      while (x < kMaxLogit && squash[kMaxLogit + x + 1] <= p) x++;
      stretch[i] = static_cast<int16_t>(x);
    }
    for (int n = 0; n < 1024; n++) rate[n] = 65536 / (2 * n + 3);
    for (int n = 0; n < 256; n++) pace[n] = static_cast<uint8_t>(8 * (5 + 11 / (1 + n / 16)) - 1);
  }
};

inline const LogisticTables& logistic() {
  static const LogisticTables tables;
  return tables;
}

// How often a bit was 1 in one context: fast at first, then as an average over about `limit` decisions.
struct Counter {
  uint16_t p = 32768, n = 0;

  void update(int bit, int limit, const int32_t* rate) {
    const int32_t error = (bit ? 65535 : 0) - p;
    p = static_cast<uint16_t>(p + (error * rate[n] >> 15));
    if (n < limit) n++;
  }
};

// A decision seen from M contexts at once. Each context owns a row of kNodes counters; weights belong to the node.
template <int M>
class MixedBits {
 public:
  // sizes: how many contexts each of the M inputs has.
  MixedBits(const int (&sizes)[M], int n_nodes, int n_weight_sets) : n_nodes_(n_nodes) {
    for (int m = 0; m < M; m++) counters_[m].resize(static_cast<size_t>(sizes[m]) * n_nodes);
    weights_.assign(static_cast<size_t>(n_weight_sets) * n_nodes * (M + 1), kFirstWeight);
    for (size_t i = M; i < weights_.size(); i += M + 1) weights_[i] = 0;
    seen_.assign(static_cast<size_t>(n_weight_sets) * n_nodes, 0);
  }

  // Points at the rows of the contexts; further bits are looked up in them by node.
  void select(const int (&contexts)[M], int weight_set) {
    for (int m = 0; m < M; m++) rows_[m] = counters_[m].data() + static_cast<size_t>(contexts[m]) * n_nodes_;
    set_ = static_cast<size_t>(weight_set) * n_nodes_;
  }

  template <class Coder>
  int code(Coder& coder, int bit, int node) {
    const LogisticTables& tables = logistic();
    int32_t* const weights = weights_.data() + (set_ + node) * (M + 1);
    int32_t inputs[M + 1];
    int32_t sum = 0;
    for (int m = 0; m < M; m++) {
      inputs[m] = tables.stretch[rows_[m][node].p >> 4];
      // A context that has seen little knows little.
      if (rows_[m][node].n < 3) inputs[m] = inputs[m] * (1 + rows_[m][node].n) >> 2;
      sum += inputs[m] * (weights[m] >> 4);
    }
    inputs[M] = 256;
    sum += inputs[M] * (weights[M] >> 4);
    int32_t logit = sum >> 12;
    logit = logit > kMaxLogit ? kMaxLogit : logit < -kMaxLogit ? -kMaxLogit : logit;
    uint32_t p = tables.squash[kMaxLogit + logit];
    p = p < kLeast ? kLeast : p > 65536 - kLeast ? 65536 - kLeast : p;
    bit = coder.bit(bit, p);
    last_ = bit ? p : 65536 - p;
    uint16_t& seen = seen_[set_ + node];
    const int32_t error = ((bit << 16) - static_cast<int32_t>(p)) * (kRate + kFirstRate / (1 + seen / 16)) >> 4;
    if (seen < 65535) seen++;
    for (int m = 0; m <= M; m++) {
      const int32_t weight = weights[m] + ((inputs[m] * error + (1 << 13)) >> 14);
      weights[m] = weight > kMostWeight ? kMostWeight : weight < -kMostWeight ? -kMostWeight : weight;
    }
    for (int m = 0; m < M; m++) rows_[m][node].update(bit, kLimit, tables.rate);
    return bit;
  }

  // Of 65536, what the last decision was given before it was known.
  uint32_t last_probability() const { return last_; }

 private:
  static constexpr int32_t kFirstWeight = 65536 * 3 / (2 * M) > 65536 ? 65536 : 65536 * 3 / (2 * M);
  static constexpr int32_t kMostWeight = 8 * 65536 - 1;  // products with inputs fit into 32 bits
  static constexpr uint32_t kLeast = 24;
  static constexpr int kLimit = 400;
  static constexpr int32_t kRate = 2, kFirstRate = 14;

  int n_nodes_;
  std::vector<Counter> counters_[M];
  std::vector<int32_t> weights_;
  std::vector<uint16_t> seen_;
  Counter* rows_[M] = {};
  size_t set_ = 0;
  uint32_t last_ = 32768;
};

// One adaptive bit without contexts.
template <class Coder>
int code_bit(Coder& coder, int bit, Counter& counter) {
  const uint32_t p = counter.p < 24 ? 24 : counter.p > 65512 ? 65512 : counter.p;
  bit = coder.bit(bit, p);
  counter.update(bit, 250, logistic().rate);
  return bit;
}

// Signed residuals as decisions: is it 0, its sign, then its size in unary, from kUnary on by its bit length.
constexpr int kUnary = 14, kResidualNodes = 2 + 2 * kUnary;

struct Escape {
  Counter length[32], first[32];
};

template <class Coder, int M>
int32_t code_residual(Coder& coder, MixedBits<M>& bits, Escape& escape, int32_t value) {
  if (bits.code(coder, value == 0, 0)) return 0;
  const int is_negative = bits.code(coder, value < 0, 1);
  const int32_t size = value < 0 ? -value : value;
  int32_t unary = 1;
  while (unary < kUnary && bits.code(coder, size > unary, 2 + 2 * unary + is_negative - 2)) unary++;
  if (unary == kUnary) {
    // size - kUnary + 1 >= 1 by its bit length, then the bits below the highest.
    const uint32_t rest = static_cast<uint32_t>(size - kUnary + 1);
    int length = 0;
    while (length < 30 && code_bit(coder, rest >> (length + 1) != 0, escape.length[length])) length++;
    uint32_t decoded = 1;
    for (int i = length - 1; i >= 0; i--) {
      const int bit = rest >> i & 1;
      decoded = decoded << 1 | static_cast<uint32_t>(i == length - 1 ? code_bit(coder, bit, escape.first[length]) : coder.bit(bit, 32768));
    }
    unary = static_cast<int32_t>(decoded) + kUnary - 1;
  }
  return is_negative ? -unary : unary;
}

}  // namespace scene3d
