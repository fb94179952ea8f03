//! Least squares with unknowns that are not negative, few equations of each unknown, and equations that
//! may be wrong altogether.

/// Rounds of weighing equations by how far they are off.
const REWEIGHINGS: usize = 5;
/// Passes over all unknowns in each round, at most.
const PASSES_MAX: usize = 400;
/// A pass that moves no unknown by more than this share of the largest ends a round.
const CONVERGED: f64 = 1e-7;

/// `terms . x = value`, to within a deviation that is not zero.
#[derive(Debug, Clone)]
pub(super) struct Equation {
    /// Unknowns and their factors, each unknown once.
    pub(super) terms: Vec<(usize, f64)>,
    pub(super) value: f64,
    pub(super) deviation: f64,
    /// This many times its deviation off, it counts half.
    pub(super) outlier: f64,
}

impl Equation {
    fn miss(&self, x: &[f64]) -> f64 {
        self.value - self.terms.iter().map(|(unknown, factor)| factor * x[*unknown]).sum::<f64>()
    }
}

/// The unknowns, from a first guess of them, that these equations come closest to. One that contradicts
/// many others is let go (weights of Cauchy's distribution).
pub(super) fn solve(equations: &[Equation], guess: Vec<f64>) -> Vec<f64> {
    let mut x: Vec<f64> = guess.into_iter().map(|value| value.max(0.0)).collect();
    let mut weights: Vec<f64> = equations.iter().map(|equation| equation.deviation.powi(-2)).collect();
    for _ in 0..REWEIGHINGS {
        descend(equations, &weights, &mut x);
        for (weight, equation) in weights.iter_mut().zip(equations) {
            let deviations = equation.miss(&x) / equation.deviation;
            *weight = equation.deviation.powi(-2) / (1.0 + (deviations / equation.outlier).powi(2));
        }
    }
    x
}

/// Coordinate descent: each unknown in turn takes the value that suits its equations best.
fn descend(equations: &[Equation], weights: &[f64], x: &mut [f64]) {
    let mut of_unknown: Vec<Vec<(usize, f64)>> = vec![Vec::new(); x.len()];
    for (index, equation) in equations.iter().enumerate() {
        equation.terms.iter().for_each(|(unknown, factor)| of_unknown[*unknown].push((index, *factor)));
    }
    let mut misses: Vec<f64> = equations.iter().map(|equation| equation.miss(x)).collect();
    for _ in 0..PASSES_MAX {
        let mut moved_most = 0.0f64;
        for (value, terms) in x.iter_mut().zip(&of_unknown) {
            let (mut pull, mut stiffness) = (0.0, 0.0);
            for (index, factor) in terms {
                pull += weights[*index] * factor * misses[*index];
                stiffness += weights[*index] * factor * factor;
            }
            if stiffness <= 0.0 {
                continue;
            }
            let better = (*value + pull / stiffness).max(0.0);
            let moved = better - *value;
            if moved != 0.0 {
                terms.iter().for_each(|(index, factor)| misses[*index] -= factor * moved);
                *value = better;
                moved_most = moved_most.max(moved.abs());
            }
        }
        let largest = x.iter().copied().fold(0.0, f64::max);
        if moved_most <= CONVERGED * largest {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn equation(terms: &[(usize, f64)], value: f64, deviation: f64) -> Equation {
        Equation { terms: terms.to_vec(), value, deviation, outlier: 2.0 }
    }

    #[test]
    fn an_equation_that_contradicts_the_others_is_let_go() {
        let mut equations: Vec<Equation> = (0..6).map(|_| equation(&[(0, 1.0)], 10.0, 0.1)).collect();
        equations.push(equation(&[(0, 1.0)], 100.0, 0.1));
        let x = solve(&equations, vec![0.0]);
        assert!((x[0] - 10.0).abs() < 0.1, "{x:?}");
    }

    proptest! {
        /// At the least sum of squares no unknown can move to lessen it (Karush, Kuhn and Tucker).
        #[test]
        fn descent_ends_where_no_unknown_can_do_better(
            rows in proptest::collection::vec(
                (proptest::collection::vec(-3i8..=3, 4), -20i8..20, 1u8..4), 1..12),
        ) {
            let rows = rows.into_iter().map(|(factors, value, deviation)| {
                let terms = factors.iter().enumerate().map(|(unknown, factor)| (unknown, f64::from(*factor)));
                equation(&terms.collect::<Vec<_>>(), f64::from(value), f64::from(deviation))
            });
            // A prior on each unknown, as every caller gives, makes the minimum the only one.
            let priors = (0..4).map(|unknown| equation(&[(unknown, 1.0)], 1.0, 2.0));
            let equations: Vec<Equation> = rows.chain(priors).collect();
            let weights: Vec<f64> = equations.iter().map(|equation| equation.deviation.powi(-2)).collect();
            let mut x = vec![0.0; 4];
            (0..20).for_each(|_| descend(&equations, &weights, &mut x));
            for unknown in 0..4 {
                let slope: f64 = equations.iter().zip(&weights).map(|(equation, weight)| {
                    let factor = equation.terms.iter().find(|term| term.0 == unknown).map_or(0.0, |term| term.1);
                    weight * factor * equation.miss(&x)
                }).sum();
                prop_assert!(slope < 1e-3 && (x[unknown] == 0.0 || slope > -1e-3), "{x:?} {slope}");
            }
        }
    }
}
