//! Student's t: how likely a mean is so many standard errors away from where it should be.

/// The chance that |t| is at least this large with so many degrees of freedom, which need not be whole.
///
/// # Panics
/// In debug builds where there are no degrees of freedom.
pub fn two_sided_p(t: f64, freedom: f64) -> f64 {
    debug_assert!(freedom > 0.0);
    if t.is_infinite() {
        return 0.0;
    }
    incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t))
}

/// The t beyond which, to both sides, lies `1 - confidence`.
pub fn critical(confidence: f64, freedom: f64) -> f64 {
    let outside = 1.0 - confidence;
    let (mut low, mut high) = (0.0, 2.0);
    while two_sided_p(high, freedom) > outside && high < 1e300 {
        high *= 2.0;
    }
    // Halving until two numbers in `f64` are neighbours: at most some hundred steps.
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return high;
        }
        if two_sided_p(middle, freedom) > outside { low = middle } else { high = middle }
    }
}

/// The regularised incomplete beta function by its continued fraction (Numerical Recipes, section 6.4).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp();
    // Each of the two fractions is quick on its side.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * fraction(a, b, x) / a
    } else {
        1.0 - front * fraction(b, a, 1.0 - x) / b
    }
}

fn fraction(a: f64, b: f64, x: f64) -> f64 {
    let safe = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let mut d = 1.0 / safe(1.0 - (a + b) * x / (a + 1.0));
    let (mut c, mut sum) = (1.0, d);
    // It needs about the root of the larger of `a` and `b` steps.
    for step in 1..20_000 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / safe(1.0 + even * d);
        c = safe(1.0 + even / c);
        sum *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / safe(1.0 + odd * d);
        c = safe(1.0 + odd / c);
        sum *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    sum
}

/// The logarithm of the gamma function of a positive number, by Lanczos' series (g = 7, nine terms).
fn ln_gamma(x: f64) -> f64 {
    const TERMS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        let pi = std::f64::consts::PI;
        return (pi / (pi * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let series = |sum: f64, (place, term): (usize, &f64)| sum + term / (x + place as f64 + 1.0);
    let sum = TERMS.iter().enumerate().fold(0.999_999_999_999_809_9, series);
    let t = x + 7.5;
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_the_books() {
        for (freedom, expected) in
            [(1.0, 12.706_204_736), (2.0, 4.302_652_730), (5.0, 2.570_581_836), (30.0, 2.042_272_456)]
        {
            assert!((critical(0.95, freedom) - expected).abs() < 1e-8, "{freedom}");
        }
        assert!((critical(0.95, 1e6) - 1.959_966_4).abs() < 1e-5);
        assert!((critical(0.99, 10.0) - 3.169_272_673).abs() < 1e-8);
    }

    #[test]
    fn with_one_and_two_degrees_there_are_closed_forms() {
        for t in [0.0, 0.1, 1.0, 3.5, 40.0] {
            let one = 1.0 - 2.0 / std::f64::consts::PI * f64::atan(t);
            let two = 1.0 - t / (2.0 + t * t).sqrt();
            assert!((two_sided_p(t, 1.0) - one).abs() < 1e-12, "{t}");
            assert!((two_sided_p(t, 2.0) - two).abs() < 1e-12, "{t}");
            assert_eq!(two_sided_p(t, 7.5), two_sided_p(-t, 7.5));
        }
        assert_eq!(two_sided_p(f64::INFINITY, 3.0), 0.0);
    }
}
