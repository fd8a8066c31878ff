// Small Fourier transforms in registers, over any type with + - * by a float: a SIMD vector of frames on the CPU, a
// float on the GPU. All are forward transforms (exp(-2 pi i / n)) with outputs in natural order.
#pragma once

#include "plan.h"

namespace reserve {

template <typename V>
RESERVE_HD Complex<V> operator+(Complex<V> a, Complex<V> b) {
  return {a.re + b.re, a.im + b.im};
}
template <typename V>
RESERVE_HD Complex<V> operator-(Complex<V> a, Complex<V> b) {
  return {a.re - b.re, a.im - b.im};
}
// z exp(-i t) from the cosine and sine of t.
template <typename V>
RESERVE_HD Complex<V> rotate(Complex<V> z, Complex<float> turn) {
  return {z.re * turn.re + z.im * turn.im, z.im * turn.re - z.re * turn.im};
}
template <typename V>
RESERVE_HD Complex<V> rotate(Complex<V> z, float cosine, float sine) {
  return rotate(z, Complex<float>{cosine, sine});
}
// -i z
template <typename V>
RESERVE_HD Complex<V> quarter_turn(Complex<V> z) {
  return {z.im, -z.re};
}

// z[0], z[step], z[2 step] and so on, in place. Steps are compile-time so that arrays stay in registers.
template <int a, int b, int c, typename V>
RESERVE_HD void transform3(Complex<V>* z) {
  constexpr float sine = 0.866025403784438647f;
  const Complex<V> sum = z[b] + z[c];
  const Complex<V> difference = z[b] - z[c];
  const Complex<V> centre = {z[a].re - sum.re * 0.5f, z[a].im - sum.im * 0.5f};
  z[a] = z[a] + sum;
  z[b] = {centre.re + difference.im * sine, centre.im - difference.re * sine};
  z[c] = {centre.re - difference.im * sine, centre.im + difference.re * sine};
}

template <int a, int b, int c, int d, typename V>
RESERVE_HD void transform4(Complex<V>* z) {
  const Complex<V> even_sum = z[a] + z[c], even_difference = z[a] - z[c];
  const Complex<V> odd_sum = z[b] + z[d], odd_difference = quarter_turn(z[b] - z[d]);
  z[a] = even_sum + odd_sum;
  z[b] = even_difference + odd_difference;
  z[c] = even_sum - odd_sum;
  z[d] = even_difference - odd_difference;
}

template <typename V>
RESERVE_HD void swap_values(Complex<V>& a, Complex<V>& b) {
  const Complex<V> held = a;
  a = b;
  b = held;
}

template <int n>
struct Transform;

template <>
struct Transform<2> {
  template <typename V>
  static RESERVE_HD void run(Complex<V>* z) {
    const Complex<V> difference = z[0] - z[1];
    z[0] = z[0] + z[1];
    z[1] = difference;
  }
};

template <>
struct Transform<3> {
  template <typename V>
  static RESERVE_HD void run(Complex<V>* z) {
    transform3<0, 1, 2>(z);
  }
};

template <>
struct Transform<4> {
  template <typename V>
  static RESERVE_HD void run(Complex<V>* z) {
    transform4<0, 1, 2, 3>(z);
  }
};

template <>
struct Transform<5> {
  template <typename V>
  static RESERVE_HD void run(Complex<V>* z) {
    constexpr float c1 = 0.309016994374947424f, c2 = -0.809016994374947424f;
    constexpr float s1 = 0.951056516295153572f, s2 = 0.587785252292473129f;
    const Complex<V> sum1 = z[1] + z[4], sum2 = z[2] + z[3];
    const Complex<V> difference1 = z[1] - z[4], difference2 = z[2] - z[3];
    const Complex<V> centre1 = {z[0].re + sum1.re * c1 + sum2.re * c2, z[0].im + sum1.im * c1 + sum2.im * c2};
    const Complex<V> centre2 = {z[0].re + sum1.re * c2 + sum2.re * c1, z[0].im + sum1.im * c2 + sum2.im * c1};
    const Complex<V> turn1 = {difference1.im * s1 + difference2.im * s2, difference1.re * s1 + difference2.re * s2};
    const Complex<V> turn2 = {difference1.im * s2 - difference2.im * s1, difference1.re * s2 - difference2.re * s1};
    z[0] = z[0] + sum1 + sum2;
    z[1] = {centre1.re + turn1.re, centre1.im - turn1.im};
    z[2] = {centre2.re + turn2.re, centre2.im - turn2.im};
    z[3] = {centre2.re - turn2.re, centre2.im + turn2.im};
    z[4] = {centre1.re - turn1.re, centre1.im + turn1.im};
  }
};

// p and q have no common factor, so no rotations are needed: input q a + p b (mod p q), output k from place
// (k mod p, k mod q).
template <int p, int q>
struct PrimeFactorTransform {
  template <typename V>
  static RESERVE_HD void run(Complex<V>* z) {
    Complex<V> middle[p][q];
    RESERVE_UNROLL
    for (int b = 0; b < q; ++b) {
      Complex<V> column[p];
      RESERVE_UNROLL
      for (int a = 0; a < p; ++a) column[a] = z[(q * a + p * b) % (p * q)];
      Transform<p>::run(column);
      RESERVE_UNROLL
      for (int a = 0; a < p; ++a) middle[a][b] = column[a];
    }
    RESERVE_UNROLL
    for (int a = 0; a < p; ++a) Transform<q>::run(middle[a]);
    RESERVE_UNROLL
    for (int k = 0; k < p * q; ++k) z[k] = middle[k % p][k % q];
  }
};

template <>
struct Transform<6> : PrimeFactorTransform<2, 3> {};
template <>
struct Transform<10> : PrimeFactorTransform<2, 5> {};

template <>
struct Transform<8> {
  template <typename V>
  static RESERVE_HD void run(Complex<V>* z) {
    constexpr float root = 0.707106781186547524f;
    transform4<0, 2, 4, 6>(z);
    transform4<1, 3, 5, 7>(z);
    // Odd outputs sit at 1, 3, 5, 7 and are turned by 0 to 3 eighths.
    const Complex<V> o0 = z[1], o2 = quarter_turn(z[5]);
    const Complex<V> o1 = {(z[3].re + z[3].im) * root, (z[3].im - z[3].re) * root};
    const Complex<V> o3 = {(z[7].im - z[7].re) * root, (z[7].re + z[7].im) * -root};
    const Complex<V> e0 = z[0], e1 = z[2], e2 = z[4], e3 = z[6];
    z[0] = e0 + o0;
    z[1] = e1 + o1;
    z[2] = e2 + o2;
    z[3] = e3 + o3;
    z[4] = e0 - o0;
    z[5] = e1 - o1;
    z[6] = e2 - o2;
    z[7] = e3 - o3;
  }
};

// 3 and 4 have no common factor, so the prime-factor mapping needs no rotations: inputs 4 a + 3 b (mod 12), outputs
// 4 k + 9 l (mod 12).
template <>
struct Transform<12> {
  template <typename V>
  static RESERVE_HD void run(Complex<V>* z) {
    transform3<0, 4, 8>(z);
    transform3<3, 7, 11>(z);
    transform3<6, 10, 2>(z);
    transform3<9, 1, 5>(z);
    transform4<0, 3, 6, 9>(z);
    transform4<4, 7, 10, 1>(z);
    transform4<8, 11, 2, 5>(z);
    // Now place (4 k + 3 l) mod 12 holds output (4 k + 9 l) mod 12.
    swap_values(z[3], z[9]);
    swap_values(z[7], z[1]);
    swap_values(z[11], z[5]);
  }
};

template <>
struct Transform<16> {
  template <typename V>
  static RESERVE_HD void run(Complex<V>* z) {
    constexpr float c1 = 0.923879532511286756f, s1 = 0.382683432365089772f, root = 0.707106781186547524f;
    transform4<0, 4, 8, 12>(z);
    transform4<1, 5, 9, 13>(z);
    transform4<2, 6, 10, 14>(z);
    transform4<3, 7, 11, 15>(z);
    z[5] = rotate(z[5], c1, s1);
    z[6] = rotate(z[6], root, root);
    z[7] = rotate(z[7], s1, c1);
    z[9] = rotate(z[9], root, root);
    z[10] = quarter_turn(z[10]);
    z[11] = rotate(z[11], -root, root);
    z[13] = rotate(z[13], s1, c1);
    z[14] = rotate(z[14], -root, root);
    z[15] = rotate(z[15], -c1, -s1);
    transform4<0, 1, 2, 3>(z);
    transform4<4, 5, 6, 7>(z);
    transform4<8, 9, 10, 11>(z);
    transform4<12, 13, 14, 15>(z);
    // Place 4 q + p holds output q + 4 p.
    swap_values(z[1], z[4]);
    swap_values(z[2], z[8]);
    swap_values(z[3], z[12]);
    swap_values(z[6], z[9]);
    swap_values(z[7], z[13]);
    swap_values(z[11], z[14]);
  }
};

// Outputs 1 to n - 1 of a pass turned by their twiddles: `factor` is the first, the next are `stride` apart.
template <int n, int stride, typename V>
RESERVE_HD void twiddle(Complex<V>* z, const Complex<float>* factor) {
  RESERVE_UNROLL
  for (int q = 1; q < n; ++q) z[q] = rotate(z[q], factor[(q - 1) * stride]);
}

// The same where the factors of one place are neighbours.
template <int n, typename V>
RESERVE_HD void twiddle(Complex<V>* z, const Complex<float>* factor, int stride) {
  RESERVE_UNROLL
  for (int q = 1; q < n; ++q) z[q] = rotate(z[q], factor[(q - 1) * stride]);
}

// Powers of the two real bins k and n_fft / 2 - k, times four, from the packed transform at k and n_fft / 2 - k.
template <typename V>
RESERVE_HD void unpack_power(Complex<V> z, Complex<V> mirror, Complex<float> turn, V& power, V& mirror_power) {
  const V even_re = z.re + mirror.re, even_im = z.im - mirror.im;
  const V odd_re = z.re - mirror.re, odd_im = z.im + mirror.im;
  const V turned_re = odd_im * turn.re - odd_re * turn.im;
  const V turned_im = odd_re * turn.re + odd_im * turn.im;
  // The sum and the difference are taken before squaring: a faint bin beside a loud mirror keeps its digits.
  const V a = even_re + turned_re, b = even_im - turned_im;
  const V c = even_re - turned_re, d = even_im + turned_im;
  power = a * a + b * b;
  mirror_power = c * c + d * d;
}

}  // namespace reserve
