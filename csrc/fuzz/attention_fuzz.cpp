// Feeds attention random problems, to be run under AddressSanitizer and UndefinedBehaviorSanitizer:
//   attention_fuzz SECONDS [SEED]
// Some arguments are invalid, some numbers are NaN or infinite; every buffer is exactly as long as the interface asks for.
// Each instruction set must agree with the formula in double; a disagreement ends the run.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "fuzz_loop.h"
#include "random_input.h"
#include "reserve_native.h"

namespace {

using reserve_fuzz::exactly;
using reserve_fuzz::fuzz;
using reserve_fuzz::Random;

constexpr int64_t size = 64;

// Numbers in memory as the interface has them: float, or the upper halves of floats. `values` are what they stand for.
struct Array {
  std::vector<double> values;
  std::unique_ptr<float[]> floats;
  std::unique_ptr<uint16_t[]> halves;

  Array(Random& random, int64_t count, bool half, double scale, bool spoiled) {
    std::vector<float> drawn(static_cast<size_t>(count));
    std::vector<uint16_t> upper;
    for (float& value : drawn) value = static_cast<float>(scale) * random.normal();
    if (spoiled && count > 0)
      drawn[static_cast<size_t>(random.between(0, count - 1))] = random.pick({NAN, INFINITY, -INFINITY, 3e38f, 1e-42f});
    for (float& value : drawn) {
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof bits);
      if (half) bits &= 0xffff0000u;
      upper.push_back(static_cast<uint16_t>(bits >> 16));
      std::memcpy(&value, &bits, sizeof value);
      values.push_back(value);
    }
    if (half)
      halves = exactly(upper);
    else
      floats = exactly(drawn);
  }

  void* data() { return halves != nullptr ? static_cast<void*>(halves.get()) : floats.get(); }
  double now(int64_t i) const {
    if (halves == nullptr) return floats[static_cast<size_t>(i)];
    const uint32_t bits = static_cast<uint32_t>(halves[static_cast<size_t>(i)]) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
};

struct Case {
  reserve_attention p{};
  bool half, backward, spoiled;
  std::unique_ptr<int32_t[]> starts, ids;
  std::unique_ptr<Array> qkv, angles, grad, out, lse, grad_qkv;
};

Case make_case(Random& random) {
  Case c;
  c.half = random.chance(0.4);
  c.backward = random.chance(0.6);
  c.spoiled = random.chance(0.2);
  reserve_attention& p = c.p;
  p.heads = random.between(1, 4);
  p.sequences = random.between(0, 6);
  std::vector<int32_t> starts{0};
  for (int64_t s = 0; s < p.sequences; ++s) {
    const int64_t length = random.chance(0.1) ? 0 : random.between(1, random.chance(0.9) ? 40 : 350);
    starts.push_back(static_cast<int32_t>(starts.back() + length));
  }
  p.tokens = starts.back();
  if (random.chance(0.05)) p.heads = 0;
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < p.tokens; ++t) ids.push_back(static_cast<int32_t>(random.between(-1, 1)));
  c.starts = exactly(starts);
  p.cu_seqlens = c.starts.get();
  if (random.chance(0.4)) {
    c.ids = exactly(ids);
    p.segment_ids = c.ids.get();
  }
  const int64_t rows = p.tokens * p.heads;
  c.qkv = std::make_unique<Array>(random, rows * 3 * size, c.half, random.pick({0.3, 1.0, 2.0}), c.spoiled);
  c.angles = std::make_unique<Array>(random, p.tokens * 16, false, random.pick({1.0, 300.0}), random.chance(0.1));
  c.grad = std::make_unique<Array>(random, rows * size, c.half, 1.0, random.chance(0.1));
  p.qkv = c.qkv->data();
  if (random.chance(0.7)) p.angles = static_cast<const float*>(c.angles->data());
  p.scale = random.pick({0.125f, 0.3f});
  p.rotary = static_cast<int32_t>(random.between(0, 1));
  p.dtype = c.half ? RESERVE_BFLOAT16 : RESERVE_FLOAT32;
  return c;
}

// Breaks an argument so that the call must be refused.
void spoil(Random& random, reserve_attention& p, std::vector<int32_t>& starts) {
  switch (random.between(0, 5)) {
    case 0: p.tokens = random.pick<int64_t>({-1, p.tokens + 1, INT64_MAX, INT64_MIN}); break;
    case 1: p.heads = random.pick<int64_t>({-1, INT64_MAX, INT64_MIN, INT64_MAX / 200}); break;
    case 2: p.sequences = random.pick<int64_t>({-1, INT64_MIN}); break;
    case 3: p.dtype = random.pick({-1, 2, INT32_MAX}); break;
    case 4: p.rotary = random.pick({-1, 2}); break;
    default:
      starts[static_cast<size_t>(random.between(0, p.sequences))] = random.pick<int32_t>({-7, INT32_MAX, INT32_MIN});
      p.cu_seqlens = starts.data();
  }
}

// Both passes of one head of one sequence in double.
class Sequence {
 public:
  Sequence(const Case& c, int64_t begin, int64_t end, int64_t head) : c_(c), begin_(begin), n_(end - begin), head_(head) {
    for (int part = 0; part < 3; ++part)
      for (int64_t i = 0; i < n_; ++i) rows_[part].push_back(rotated(part, i));
    weights_.resize(static_cast<size_t>(n_ * n_));
    for (int64_t i = 0; i < n_; ++i) fill_weights(i);
  }

  // The output of token i at dimension d.
  double out(int64_t i, int64_t d) const {
    double sum = 0;
    for (int64_t k = 0; k < n_; ++k) sum += weight(i, k) * rows_[2][k][d];
    return sum;
  }

  // The gradients of all rows: [3][tokens][64].
  std::vector<double> gradients() const {
    std::vector<double> sums(static_cast<size_t>(3 * n_ * size));
    const auto at = [&](int part, int64_t i) { return sums.data() + (part * n_ + i) * size; };
    for (int64_t i = 0; i < n_; ++i) {
      std::vector<double> of_weight(static_cast<size_t>(n_));
      double delta = 0;
      for (int64_t k = 0; k < n_; ++k) {
        for (int64_t d = 0; d < size; ++d) of_weight[k] += grad(i, d) * rows_[2][k][d];
        delta += of_weight[k] * weight(i, k);
      }
      for (int64_t k = 0; k < n_; ++k) {
        const double of_score = weight(i, k) * (of_weight[k] - delta) * c_.p.scale;
        for (int64_t d = 0; d < size; ++d) {
          at(0, i)[d] += of_score * rows_[1][k][d];
          at(1, k)[d] += of_score * rows_[0][i][d];
          at(2, k)[d] += weight(i, k) * grad(i, d);
        }
      }
    }
    for (int part = 0; part < 2; ++part)
      for (int64_t i = 0; i < n_; ++i) rotate(i, at(part, i), -1);
    return sums;
  }

  // The largest of the sequence's numbers, infinity if one is not finite.
  double largest() const {
    double most = 0;
    const auto take = [&](double x) { most = std::fmax(most, std::isfinite(x) ? std::fabs(x) : INFINITY); };
    for (const auto& part : rows_)
      for (const auto& row : part)
        for (double x : row) take(x);
    for (int64_t i = 0; i < n_; ++i)
      for (int64_t d = 0; d < size; ++d) take(grad(i, d));
    return most;
  }

  int64_t row(int64_t i) const { return (begin_ + i) * c_.p.heads + head_; }
  int64_t qkv_row(int part, int64_t i) const { return ((begin_ + i) * 3 + part) * c_.p.heads + head_; }
  int64_t tokens() const { return n_; }

 private:
  double grad(int64_t i, int64_t d) const { return c_.grad->values[static_cast<size_t>(row(i) * size + d)]; }
  double weight(int64_t i, int64_t k) const { return weights_[static_cast<size_t>(i * n_ + k)]; }

  void rotate(int64_t i, double* x, int direction) const {
    if (c_.p.angles == nullptr) return;
    for (int64_t j = 0; j < 16; ++j) {
      const double angle = c_.angles->values[static_cast<size_t>((begin_ + i) * 16 + j)];
      const double sine = std::sin(angle), cosine = std::cos(angle), even = x[2 * j], odd = x[2 * j + 1];
      const bool standard = c_.p.rotary == RESERVE_ROTARY_STANDARD;
      x[2 * j] = standard ? even * cosine - direction * odd * sine : even * (sine - cosine);
      x[2 * j + 1] = standard ? odd * cosine + direction * even * sine : odd * (sine + cosine);
    }
  }

  std::vector<double> rotated(int part, int64_t i) const {
    const double* from = c_.qkv->values.data() + qkv_row(part, i) * size;
    std::vector<double> x(from, from + size);
    if (part < 2) rotate(i, x.data(), 1);
    return x;
  }

  void fill_weights(int64_t i) {
    double* w = weights_.data() + i * n_;
    double most = -INFINITY, sum = 0;
    for (int64_t k = 0; k < n_; ++k) {
      const bool apart = c_.p.segment_ids != nullptr && c_.p.segment_ids[begin_ + i] != c_.p.segment_ids[begin_ + k];
      double score = 0;
      for (int64_t d = 0; d < size; ++d) score += rows_[0][i][d] * rows_[1][k][d];
      w[k] = apart ? -INFINITY : score * c_.p.scale;
      most = std::fmax(most, w[k]);
    }
    for (int64_t k = 0; k < n_; ++k) sum += w[k] = std::exp(w[k] - most);
    for (int64_t k = 0; k < n_; ++k) w[k] /= sum;
  }

  const Case& c_;
  int64_t begin_, n_, head_;
  std::vector<std::vector<double>> rows_[3];
  std::vector<double> weights_;
};

// The numbers of one kind in a sequence, and how they differ from what they should be.
struct Difference {
  double largest = 0, expected = 0;

  void add(double found, double right) {
    const double error = std::fabs(found - right);
    largest = std::fmax(largest, std::isfinite(error) ? error : INFINITY);
    expected = std::fmax(expected, std::fabs(right));
  }
  bool is_small(double tolerance) const { return largest <= tolerance * (1 + expected); }
};

// Whether the numbers of one sequence are as expected.
bool agree(const Case& c, const Sequence& s) {
  // Anything may come of numbers that are not finite, or whose scores overflow.
  if (!(s.largest() < 1e6)) return true;
  Difference out, grad;
  const std::vector<double> grads = c.backward ? s.gradients() : std::vector<double>();
  for (int64_t i = 0; i < s.tokens(); ++i)
    for (int64_t d = 0; d < size; ++d) {
      out.add(c.out->now(s.row(i) * size + d), s.out(i, d));
      for (int part = 0; c.backward && part < 3; ++part)
        grad.add(c.grad_qkv->now(s.qkv_row(part, i) * size + d), grads[(part * s.tokens() + i) * size + d]);
    }
  // A bfloat16 output of the forward pass, rounded, is an input of the backward pass.
  return out.is_small(c.half ? 5e-3 : 1e-4) && grad.is_small(c.half ? 2e-2 : 1e-3);
}

int run(Random& random) {
  Case c = make_case(random);
  reserve_attention& p = c.p;
  const int64_t rows = p.tokens * p.heads;
  if (random.chance(0.1)) {
    std::vector<int32_t> starts(p.cu_seqlens, p.cu_seqlens + p.sequences + 1);
    spoil(random, p, starts);
    const int32_t status = reserve_attention_cpu(&p, 1, RESERVE_ISA_AUTO);
    if (status == RESERVE_INVALID_ARGUMENT) return 0;
    std::fprintf(stderr, "an invalid problem gave status %d\n", status);
    return 1;
  }
  for (int32_t isa : {RESERVE_ISA_BASELINE, RESERVE_ISA_AVX2, RESERVE_ISA_AVX512}) {
    if (!reserve_has_isa(isa)) continue;
    c.out = std::make_unique<Array>(random, rows * size, c.half, 1.0, false);
    c.lse = std::make_unique<Array>(random, rows, false, 1.0, false);
    c.grad_qkv = std::make_unique<Array>(random, rows * 3 * size, c.half, 1.0, false);
    p.out = c.out->data();
    p.lse = static_cast<float*>(c.lse->data());
    p.grad = p.grad_qkv = nullptr;
    const auto threads = static_cast<int32_t>(random.between(1, 4));
    if (reserve_attention_cpu(&p, threads, isa) != RESERVE_OK) return 1;
    p.grad = c.grad->data();
    p.grad_qkv = c.grad_qkv->data();
    if (c.backward && reserve_attention_cpu(&p, threads, isa) != RESERVE_OK) return 1;
    for (int64_t s = 0; s < p.sequences; ++s)
      for (int64_t head = 0; head < p.heads; ++head)
        if (!agree(c, Sequence(c, p.cu_seqlens[s], p.cu_seqlens[s + 1], head))) {
          std::fprintf(stderr, "sequence %lld of %d tokens, head %lld, instruction set %d: not as expected\n",
                       static_cast<long long>(s), p.cu_seqlens[s + 1] - p.cu_seqlens[s], static_cast<long long>(head), isa);
          return 1;
        }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return fuzz(argc, argv, run); }
