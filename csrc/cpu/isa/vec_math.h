// SPDX-License-Identifier: Apache-2.0
// exp2 and tanh of a vector; polynomials fitted in float64 for the least relative error (Lawson's weighted least squares).
#pragma once
#include "cpu/isa/vec.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

/** 2^x for x <= 0: relative error below 1.5e-7; 0 for -inf and where the result is subnormal or less. NaN stays NaN. */
FLASHINFER_INLINE Vec Exp2(Vec x) {
  // The bound keeps -inf away from inf - inf below; NaN passes Max as its second argument.
  x = Max(Set1(kMinExponent), x);
  const Vec n = Round(x);
  const Vec f = Sub(x, n);  // [-0.5, 0.5]
  Vec p = Fma(Set1(1.5353360504377633e-4f), f, Set1(1.3398875016719103e-3f));
  p = Fma(p, f, Set1(9.6184369176626205e-3f));
  p = Fma(p, f, Set1(5.5503323674201965e-2f));
  p = Fma(p, f, Set1(2.4022647738456726e-1f));
  p = Fma(p, f, Set1(6.9314718246459961e-1f));
  return Scale2(Fma(p, f, Set1(1.0f)), n);
}

/** tanh(x): a few units in the last place over the whole range. NaN stays NaN. */
FLASHINFER_INLINE Vec Tanh(Vec x) {
  const Vec magnitude = Abs(x);
  // Below 0.6: x + x^3 p(x^2), since 1 - e would cancel.
  const Vec u = Mul(x, x);
  Vec p = Fma(Set1(-5.9058568440377712e-3f), u, Set1(2.0805373787879944e-2f));
  p = Fma(p, u, Set1(-5.3786680102348328e-2f));
  p = Fma(p, u, Set1(1.3331958651542664e-1f));
  p = Fma(p, u, Set1(-3.3333298563957214e-1f));
  const Vec small = Fma(Mul(p, u), x, x);
  // tanh|x| = (1 - e) / (1 + e), e = exp(-2|x|).
  const Vec e = Exp2(Mul(magnitude, Set1(-2.8853900817779268f)));
  const Vec large = CopySign(Div(Sub(Set1(1.0f), e), Add(Set1(1.0f), e)), x);
  return Select(Less(magnitude, Set1(0.6f)), small, large);
}

}  // namespace flashinfer::cpu::FLASHINFER_ISA
