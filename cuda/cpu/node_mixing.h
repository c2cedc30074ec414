// Residuals as series of decisions, all of whose probabilities are mixed at once: each lane is a decision, each context a
// row of adaptive counters. Which decisions are needed shows as they are coded; the others do not learn.
//
// As in context_mixing.h logits are of 256, probabilities of 65536, weights learn online (Mahoney 2005). What comes next
// does not wait for what came before: a processor that guesses a bit wrong loses little. 30 ns a residual on a Zen 4.
#pragma once
#include <vector>

#include "cpu/context_mixing.h"
#include "cpu/lanes16.h"

namespace scene3d {

// Is it 0; its sign; is its size above 1, 2, 4, 8, 16, 32.
constexpr int kNodes = 8, kZeroNode = 0, kSignNode = 1, kSizeNode = 2;

struct CounterRow {
  u16x8 p, rate;
  i16x8 logit;
};

struct WeightRow {
  i32x4 low, high;  // 2^24 for 1
};

template <int M>
class MixedNodes {
 public:
  // sizes: how many rows each of the M inputs has.
  MixedNodes(const int (&sizes)[M], int n_weight_sets) {
    const u16x8 half = {32768, 32768, 32768, 32768, 32768, 32768, 32768, 32768};
    for (int m = 0; m < M; m++) counters_[m].assign(static_cast<size_t>(sizes[m]), CounterRow{half, half - half + kFirstRate, i16x8{}});
    const i32x4 first = i32x4{} + kFirstWeight;
    weights_.assign(static_cast<size_t>(n_weight_sets) * (M + 1), WeightRow{first, first});
    for (size_t i = M; i < weights_.size(); i += M + 1) weights_[i] = WeightRow{};
    seen_.assign(static_cast<size_t>(n_weight_sets) * kNodes, 0);
  }

  // Mixes the probabilities of all decisions under these contexts.
  void begin(const int (&contexts)[M], int weight_set) {
    set_ = weights_.data() + static_cast<size_t>(weight_set) * (M + 1);
    pace_ = seen_.data() + static_cast<size_t>(weight_set) * kNodes;
    i32x4 low = set_[M].low >> 2, high = set_[M].high >> 2;  // 2^8 times weights of 2^14
    for (int m = 0; m < M; m++) {
      rows_[m] = &counters_[m][static_cast<size_t>(contexts[m])];
      // A context that has seen little knows little.
      const i16x8 trust = 32767 - (i16x8)(rows_[m]->rate >> 1);
      inputs_[m] = multiply_high((i16x8)(rows_[m]->logit << 1), trust);
      const Pair32 product = multiply(inputs_[m], narrowed(set_[m].low >> 10, set_[m].high >> 10));
      low += product.low, high += product.high;
    }
    const i16x8 logits = narrowed(low >> 14, high >> 14);
    for (int i = 0; i < kNodes; i++) logits_[i] = logits[i];
    errors_[0] = errors_[1] = 0;
  }

  template <class Coder>
  int code(Coder& coder, int bit, int node) {
    const LogisticTables& tables = logistic();
    const int32_t logit = logits_[node];
    const int32_t p = tables.squash[kMaxLogit + (logit > kMaxLogit ? kMaxLogit : logit < -kMaxLogit ? -kMaxLogit : logit)];
    const int32_t bounded = p < kLeast ? kLeast : p > 65536 - kLeast ? 65536 - kLeast : p;
    bit = coder.bit(bit, static_cast<uint32_t>(bounded));
    // Its sign says what the bit was; 0 stands for a decision that was not needed.
    const int32_t error = ((bit << 16) - bounded) * tables.pace[pace_[node]] >> 8;
    pace_[node] = static_cast<uint8_t>(pace_[node] + (pace_[node] < 255));
    errors_[node >> 2] |= static_cast<uint64_t>(static_cast<uint16_t>(error)) << 16 * (node & 3);
    return bit;
  }

  // Lets counters and weights learn from the decisions since begin.
  void end() {
    i16x8 error;
    std::memcpy(&error, errors_, sizeof error);
    const i16x8 used = error != 0, is_one = error > 0;
    for (int m = 0; m < M; m++) {
      learn(inputs_[m], error, set_[m]);
      update(*rows_[m], (u16x8)is_one, (u16x8)used);
    }
    learn(i16x8{} + 256, error, set_[M]);
  }

 private:
  static constexpr int32_t kFirstWeight = (1 << 24) / M * 3 / 2;
  static constexpr int32_t kLeast = 24;
  static constexpr uint16_t kFirstRate = 43690;  // 1 / 1.5

  static void learn(i16x8 input, i16x8 error, WeightRow& weights) {
    const Pair32 step = multiply(input, error);
    weights.low += step.low >> 5, weights.high += step.high >> 5;
  }

  static void update(CounterRow& row, u16x8 is_one, u16x8 used) {
    const u16x8 step = multiply_high(row.p ^ is_one, row.rate) & used, is_zero = ~is_one;
    row.p += (step ^ is_zero) - is_zero;
    // r - r^2 (1 - r / 2), nearly 1 / (n + 1.5) after n, and never below 1 / 256, where the product has no bits left.
    row.rate -= multiply_high(row.rate, multiply_high(row.rate, ~(row.rate >> 1))) & used;
    // ln(p / (1 - p)) of 256 from log2 of 2048: times ln(2) / 8.
    const u16x8 bounded = row.p | 1;
    row.logit = multiply_high((i16x8)((log2_of(bounded) - log2_of(~bounded | 1)) >> 1), i16x8{} + 11357);
  }

  std::vector<CounterRow> counters_[M];
  std::vector<WeightRow> weights_;
  std::vector<uint8_t> seen_;
  CounterRow* rows_[M] = {};
  WeightRow* set_ = nullptr;
  uint8_t* pace_ = nullptr;
  i16x8 inputs_[M] = {};
  int32_t logits_[kNodes] = {};
  uint64_t errors_[2] = {};
};

// What is left of a size that its decisions bound: two adaptive bits, then plain ones; beyond 32 by its bit length.
struct Tail {
  Counter inner[2][4][4];  // by sign, octave and bits before
  Counter length[32], first[32];
};

// One adaptive bit seen from two contexts, each counts as much.
template <class Coder>
int code_bit(Coder& coder, int bit, Counter& one, Counter& other) {
  const uint32_t p = (uint32_t{one.p} + other.p) / 2;
  bit = coder.bit(bit, p < 24 ? 24 : p > 65512 ? 65512 : p);
  one.update(bit, 250, logistic().rate);
  other.update(bit, 250, logistic().rate);
  return bit;
}

template <class Coder>
int32_t code_beyond(Coder& coder, Tail& tail, int32_t size) {
  const uint32_t rest = static_cast<uint32_t>(size - 32);
  int length = 0;
  while (length < 29 && code_bit(coder, rest >> (length + 1) != 0, tail.length[length])) length++;
  uint32_t decoded = 1;
  for (int i = length - 1; i >= 0; i--) {
    const int bit = rest >> i & 1;
    decoded = decoded << 1 | static_cast<uint32_t>(i == length - 1 ? code_bit(coder, bit, tail.first[length]) : coder.bit(bit, 32768));
  }
  return static_cast<int32_t>(decoded) + 32;
}

// Sizes 2^(octave - 1) + 1 to 2^octave.
template <class Coder>
int32_t code_inside(Coder& coder, Counter (&nodes)[4], Counter (&others)[4], int octave, int32_t size) {
  const int n_bits = octave - 1;
  const int32_t base = (1 << n_bits) + 1, inside = size - base;
  int32_t decoded = 0;
  int node = 1;
  for (int i = n_bits - 1; i >= 0; i--) {
    const int bit = inside >> i & 1;
    const bool is_modelled = i >= n_bits - 2;
    const int coded = is_modelled ? code_bit(coder, bit, nodes[node], others[node]) : coder.bit(bit, 32768);
    if (is_modelled) node = node * 2 + coded;
    decoded = decoded << 1 | coded;
    if (node > 3) node = 3;
  }
  return base + decoded;
}

template <class Coder, int M>
int32_t code_residual(Coder& coder, MixedNodes<M>& nodes, Tail& tail, Tail& other, int32_t value) {
  if (nodes.code(coder, value == 0, kZeroNode)) {
    nodes.end();
    return 0;
  }
  const int is_negative = nodes.code(coder, value < 0, kSignNode);
  const int32_t wanted = value < 0 ? -value : value;
  int octave = 0;
  while (octave < 6 && nodes.code(coder, wanted > 1 << octave, kSizeNode + octave)) octave++;
  nodes.end();
  const int32_t size = octave == 6 ? code_beyond(coder, tail, wanted) : octave < 2 ? 1 << octave : code_inside(coder, tail.inner[is_negative][octave - 2], other.inner[is_negative][octave - 2], octave, wanted);
  return is_negative ? -size : size;
}

}  // namespace scene3d
