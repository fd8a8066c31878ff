// Both passes of bias + quick GELU over a range of numbers, compiled and vectorised once for each instruction set:
// RESERVE_KERNEL is the function's name. All functions of this file and its includes are inlined or local, so that
// instruction sets share none.
#include "quick_gelu_cpu.h"
#include "quick_gelu_number.h"

namespace reserve {
namespace {

template <typename Number, bool has_bias>
void forward(const Number* __restrict x, const float* __restrict bias, Number* __restrict out, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    write_number(out + i, quick_gelu(read_number(x[i]) + (has_bias ? bias[i] : 0.0f)));
}

template <typename Number, bool has_bias>
void backward(const Number* __restrict grad, const Number* __restrict x, const float* __restrict bias,
              Number* __restrict grad_x, float* __restrict sum, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = read_number(grad[i]) * quick_gelu_slope(read_number(x[i]) + (has_bias ? bias[i] : 0.0f));
    write_number(grad_x + i, g);
    if (has_bias) sum[i] += g;
  }
}

template <typename Number, bool has_bias>
void run(const reserve_quick_gelu& problem, int64_t begin, int64_t end, float* sum) {
  const auto* x = static_cast<const Number*>(problem.x);
  const auto* grad = static_cast<const Number*>(problem.grad);
  auto* out = static_cast<Number*>(problem.out);
  // Without a bias rows do not matter.
  const int64_t row = has_bias ? problem.features : end - begin;
  for (int64_t i = begin; i < end; i += row) {
    if (grad == nullptr)
      forward<Number, has_bias>(x + i, problem.bias, out + i, row);
    else
      backward<Number, has_bias>(grad + i, x + i, problem.bias, out + i, sum, row);
  }
}

}  // namespace

void RESERVE_KERNEL(const reserve_quick_gelu& problem, int64_t begin, int64_t end, float* sum) {
  const bool half = problem.dtype == RESERVE_BFLOAT16;
  if (problem.bias == nullptr)
    half ? run<uint16_t, false>(problem, begin, end, sum) : run<float, false>(problem, begin, end, sum);
  else
    half ? run<uint16_t, true>(problem, begin, end, sum) : run<float, true>(problem, begin, end, sum);
}

}  // namespace reserve
