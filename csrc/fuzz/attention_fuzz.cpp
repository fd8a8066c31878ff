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

// A problem and its memory. Queries, keys and values are parts of one array, or keys and values of one of their own.
struct Case {
  reserve_attention p{};
  bool half, backward, crossed;
  std::unique_ptr<int32_t[]> starts, starts_k, ids, ids_k;
  std::unique_ptr<Array> q, kv, angles, angles_k, grad, out, lse, grad_q, grad_kv;

  // Where queries (0), keys (1) or values (2) of a token and a head of theirs begin, in `q` or in `kv`.
  int64_t at(int part, int64_t token, int64_t head) const {
    if (!crossed) return ((token * 3 + part) * p.heads + head) * p.head_size;
    if (part == 0) return (token * p.heads + head) * p.head_size;
    return ((token * 2 + part - 1) * p.kv_heads + head) * p.head_size;
  }
  const Array& array(int part) const { return crossed && part > 0 ? *kv : *q; }
  const Array& grad_array(int part) const { return crossed && part > 0 ? *grad_kv : *grad_q; }
  int64_t q_numbers() const { return p.tokens * p.q_stride; }
  int64_t kv_numbers() const { return crossed ? p.tokens_k * p.kv_stride : 0; }

  // The part's first number in memory.
  char* pointer(const std::unique_ptr<Array>& of_q, const std::unique_ptr<Array>& of_kv, int part) const {
    char* first = static_cast<char*>((crossed && part > 0 ? of_kv : of_q)->data());
    return first + at(part, 0, 0) * static_cast<int64_t>(half ? sizeof(uint16_t) : sizeof(float));
  }
};

std::vector<int32_t> draw_starts(Random& random, int64_t sequences) {
  std::vector<int32_t> starts{0};
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t length = random.chance(0.1) ? 0 : random.between(1, random.chance(0.9) ? 40 : 350);
    starts.push_back(static_cast<int32_t>(starts.back() + length));
  }
  return starts;
}

std::unique_ptr<int32_t[]> draw_ids(Random& random, int64_t tokens) {
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < tokens; ++t) ids.push_back(static_cast<int32_t>(random.between(-1, 1)));
  return exactly(ids);
}

Case make_case(Random& random) {
  Case c;
  c.half = random.chance(0.4);
  c.backward = random.chance(0.6);
  c.crossed = random.chance(0.5);
  const bool spoiled = random.chance(0.2);
  reserve_attention& p = c.p;
  p.head_size = random.pick({32, 64, 64, 96, 128});
  p.token_angles = static_cast<int32_t>(random.chance(0.3) ? 16 : random.between(1, p.head_size / 2));
  p.kv_heads = random.between(1, c.crossed ? 2 : 4);
  p.heads = c.crossed ? p.kv_heads * random.between(1, 3) : p.kv_heads;
  p.sequences = random.between(0, 6);
  const std::vector<int32_t> starts = draw_starts(random, p.sequences);
  const std::vector<int32_t> starts_k = c.crossed ? draw_starts(random, p.sequences) : starts;
  p.tokens = starts.back();
  p.tokens_k = starts_k.back();
  if (random.chance(0.05)) p.heads = p.kv_heads = 0;
  p.q_stride = (c.crossed ? 1 : 3) * p.heads * p.head_size;
  p.kv_stride = c.crossed ? 2 * p.kv_heads * p.head_size : p.q_stride;
  c.starts = exactly(starts);
  c.starts_k = exactly(starts_k);
  p.cu_seqlens = c.starts.get();
  p.cu_seqlens_k = c.crossed ? c.starts_k.get() : p.cu_seqlens;
  c.ids = draw_ids(random, p.tokens);
  c.ids_k = draw_ids(random, p.tokens_k);
  if (random.chance(0.4)) {
    p.segment_ids = c.ids.get();
    p.segment_ids_k = c.crossed ? c.ids_k.get() : p.segment_ids;
  }
  const double scale = random.pick({0.3, 1.0, 2.0}), angle = random.pick({1.0, 300.0});
  c.q = std::make_unique<Array>(random, c.q_numbers(), c.half, scale, spoiled);
  c.kv = std::make_unique<Array>(random, c.kv_numbers(), c.half, scale, spoiled);
  c.angles = std::make_unique<Array>(random, p.tokens * p.token_angles, false, angle, random.chance(0.1));
  c.angles_k = std::make_unique<Array>(random, p.tokens_k * p.token_angles, false, angle, random.chance(0.1));
  c.grad = std::make_unique<Array>(random, p.tokens * p.heads * p.head_size, c.half, 1.0, random.chance(0.1));
  p.q = c.pointer(c.q, c.kv, 0);
  p.k = c.pointer(c.q, c.kv, 1);
  p.v = c.pointer(c.q, c.kv, 2);
  if (random.chance(0.7)) {
    p.angles = static_cast<const float*>(c.angles->data());
    p.angles_k = c.crossed ? static_cast<const float*>(c.angles_k->data()) : p.angles;
  }
  p.scale = random.pick({0.125f, 0.3f});
  p.rotary = static_cast<int32_t>(random.between(0, 1));
  p.dtype = c.half ? RESERVE_BFLOAT16 : RESERVE_FLOAT32;
  return c;
}

// Breaks an argument so that the call must be refused.
void spoil(Random& random, reserve_attention& p, std::vector<int32_t>& starts) {
  switch (random.between(0, 9)) {
    case 0: p.tokens = random.pick<int64_t>({-1, p.tokens + 1, INT64_MAX, INT64_MIN}); break;
    case 1: p.heads = random.pick<int64_t>({-1, INT64_MAX, INT64_MIN, INT64_MAX / 200}); break;
    case 2: p.sequences = random.pick<int64_t>({-1, INT64_MIN}); break;
    case 3: p.dtype = random.pick({-1, 2, INT32_MAX}); break;
    case 4: p.rotary = random.pick({-1, 2}); break;
    case 5: p.tokens_k = random.pick<int64_t>({-1, p.tokens_k + 1, INT64_MAX}); break;
    case 6: p.kv_heads = random.pick<int64_t>({-1, p.heads + 1, INT64_MAX}); break;
    case 7: p.head_size = random.pick({-64, 0, 48, INT32_MAX}); break;
    case 8: p.kv_stride = random.pick<int64_t>({-1, INT64_MAX, INT64_MIN}); break;
    default:
      starts[static_cast<size_t>(random.between(0, p.sequences))] = random.pick<int32_t>({-7, INT32_MAX, INT32_MIN});
      p.cu_seqlens = starts.data();
  }
}

// Both passes of one sequence and of the heads that share head `head` of its keys, in double.
class Sequence {
 public:
  Sequence(const Case& c, int64_t sequence, int64_t head)
      : c_(c), p_(c.p), size_(c.p.head_size), group_(c.p.heads / c.p.kv_heads), head_(head) {
    const reserve_attention& p = c.p;
    begin_[0] = p.cu_seqlens[sequence];
    begin_[1] = begin_[2] = p.cu_seqlens_k[sequence];
    count_[0] = p.cu_seqlens[sequence + 1] - begin_[0];
    count_[1] = count_[2] = p.cu_seqlens_k[sequence + 1] - begin_[1];
    for (int part = 0; part < 3; ++part)
      for (int64_t row = 0; row < rows(part); ++row) rows_[part].push_back(rotated(part, row));
    for (int64_t row = 0; row < rows(0); ++row) fill_weights(row);
  }

  // Rows of a part: for queries, all heads of the group one after another.
  int64_t rows(int part) const { return count_[part] * (part == 0 ? group_ : 1); }

  // The output of a row of queries at dimension d.
  double out(int64_t row, int64_t d) const {
    double sum = 0;
    for (int64_t k = 0; k < count_[1]; ++k) sum += weights_[row][k] * rows_[2][k][d];
    return sum;
  }

  // The gradients of all rows of the three parts.
  std::vector<std::vector<double>> gradients(int wanted) const {
    std::vector<std::vector<double>> sums[3];
    for (int part = 0; part < 3; ++part) sums[part].assign(rows(part), std::vector<double>(size_));
    for (int64_t i = 0; i < rows(0); ++i) {
      std::vector<double> of_weight(static_cast<size_t>(count_[1]));
      double delta = 0;
      for (int64_t k = 0; k < count_[1]; ++k) {
        for (int64_t d = 0; d < size_; ++d) of_weight[k] += grad(i, d) * rows_[2][k][d];
        delta += of_weight[k] * weights_[i][k];
      }
      for (int64_t k = 0; k < count_[1]; ++k) {
        const double of_score = weights_[i][k] * (of_weight[k] - delta) * p_.scale;
        for (int64_t d = 0; d < size_; ++d) {
          sums[0][i][d] += of_score * rows_[1][k][d];
          sums[1][k][d] += of_score * rows_[0][i][d];
          sums[2][k][d] += weights_[i][k] * grad(i, d);
        }
      }
    }
    for (int64_t row = 0; wanted < 2 && row < rows(wanted); ++row) rotate(wanted, row, sums[wanted][row].data(), -1);
    return sums[wanted];
  }

  // The largest of the sequence's numbers, infinity if one is not finite.
  double largest() const {
    double most = 0;
    const auto take = [&](double x) { most = std::fmax(most, std::isfinite(x) ? std::fabs(x) : INFINITY); };
    for (const auto& part : rows_)
      for (const auto& row : part)
        for (double x : row) take(x);
    for (int64_t i = 0; i < rows(0); ++i)
      for (int64_t d = 0; d < size_; ++d) take(grad(i, d));
    return most;
  }

  // Where a row of a part, or of the output, begins in its array.
  int64_t at(int part, int64_t row) const { return c_.at(part, token(part, row), head(part, row)); }
  int64_t out_at(int64_t row) const { return (token(0, row) * p_.heads + head(0, row)) * size_; }

 private:
  int64_t token(int part, int64_t row) const { return begin_[part] + row % count_[part]; }
  int64_t head(int part, int64_t row) const { return part == 0 ? head_ * group_ + row / count_[0] : head_; }
  double grad(int64_t row, int64_t d) const { return c_.grad->values[static_cast<size_t>(out_at(row) + d)]; }

  void rotate(int part, int64_t row, double* x, int direction) const {
    if (p_.angles == nullptr) return;
    const Array& angles = part == 1 && c_.crossed ? *c_.angles_k : *c_.angles;
    for (int64_t j = 0; j < p_.token_angles; ++j) {
      const double angle = angles.values[static_cast<size_t>(token(part, row) * p_.token_angles + j)];
      const double sine = std::sin(angle), cosine = std::cos(angle), even = x[2 * j], odd = x[2 * j + 1];
      const bool standard = p_.rotary == RESERVE_ROTARY_STANDARD;
      x[2 * j] = standard ? even * cosine - direction * odd * sine : even * (sine - cosine);
      x[2 * j + 1] = standard ? odd * cosine + direction * even * sine : odd * (sine + cosine);
    }
  }

  std::vector<double> rotated(int part, int64_t row) const {
    const double* from = c_.array(part).values.data() + at(part, row);
    std::vector<double> x(from, from + size_);
    if (part < 2) rotate(part, row, x.data(), 1);
    return x;
  }

  void fill_weights(int64_t row) {
    std::vector<double> w;
    double most = -INFINITY, sum = 0;
    for (int64_t k = 0; k < count_[1]; ++k) {
      const bool apart = p_.segment_ids != nullptr && p_.segment_ids[token(0, row)] != p_.segment_ids_k[token(1, k)];
      double score = 0;
      for (int64_t d = 0; d < size_; ++d) score += rows_[0][row][d] * rows_[1][k][d];
      w.push_back(apart ? -INFINITY : score * p_.scale);
      most = std::fmax(most, w.back());
    }
    // A query without keys has no weights.
    for (double& x : w) sum += x = most == -INFINITY ? 0 : std::exp(x - most);
    for (double& x : w) x = sum == 0 ? 0 : x / sum;
    weights_.push_back(w);
  }

  const Case& c_;
  const reserve_attention& p_;
  int64_t size_, group_, head_, begin_[3], count_[3];
  std::vector<std::vector<double>> rows_[3], weights_;
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
  for (int64_t i = 0; i < s.rows(0); ++i)
    for (int64_t d = 0; d < c.p.head_size; ++d) out.add(c.out->now(s.out_at(i) + d), s.out(i, d));
  for (int part = 0; c.backward && part < 3; ++part) {
    const auto expected = s.gradients(part);
    for (int64_t i = 0; i < s.rows(part); ++i)
      for (int64_t d = 0; d < c.p.head_size; ++d) grad.add(c.grad_array(part).now(s.at(part, i) + d), expected[i][d]);
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
  // Without queries the output's gradient would be a pointer to nothing, and so is the call.
  if (p.tokens == 0) c.backward = false;
  for (int32_t isa : {RESERVE_ISA_BASELINE, RESERVE_ISA_AVX2, RESERVE_ISA_AVX512}) {
    if (!reserve_has_isa(isa)) continue;
    c.out = std::make_unique<Array>(random, rows * p.head_size, c.half, 1.0, false);
    c.lse = std::make_unique<Array>(random, rows, false, 1.0, false);
    c.grad_q = std::make_unique<Array>(random, c.q_numbers(), c.half, 1.0, false);
    c.grad_kv = std::make_unique<Array>(random, c.kv_numbers(), c.half, 1.0, false);
    p.out = c.out->data();
    p.lse = static_cast<float*>(c.lse->data());
    p.grad = p.grad_q = p.grad_k = p.grad_v = nullptr;
    const auto threads = static_cast<int32_t>(random.between(1, 4));
    if (reserve_attention_cpu(&p, threads, isa) != RESERVE_OK) return 1;
    p.grad = c.grad->data();
    p.grad_q = c.pointer(c.grad_q, c.grad_kv, 0);
    p.grad_k = c.pointer(c.grad_q, c.grad_kv, 1);
    p.grad_v = c.pointer(c.grad_q, c.grad_kv, 2);
    if (c.backward && reserve_attention_cpu(&p, threads, isa) != RESERVE_OK) return 1;
    for (int64_t s = 0; s < p.sequences; ++s)
      for (int64_t head = 0; head < p.kv_heads; ++head)
        if (!agree(c, Sequence(c, s, head))) {
          std::fprintf(stderr, "sequence %lld, head %lld, instruction set %d, heads of %d: not as expected\n",
                       static_cast<long long>(s), static_cast<long long>(head), isa, p.head_size);
          return 1;
        }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return fuzz(argc, argv, run); }
