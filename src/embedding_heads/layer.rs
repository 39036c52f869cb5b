//! A linear layer: a matrix and a bias.

/// Sums that are kept side by side, so that the compiler can add several numbers in one instruction. The order in which
/// floats are added would otherwise be fixed.
const LANES: usize = 16;

/// Rows of the matrix that are used while they are near the processor, before the next ones are fetched.
const ROWS_AT_ONCE: usize = 16;

/// A linear layer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LinearLayer {
    /// The numbers that it takes.
    inputs: usize,
    /// One row of `inputs` numbers for each number that it gives.
    weight: Vec<f32>,
    /// One for each number that it gives.
    bias: Vec<f32>,
}

impl LinearLayer {
    /// Creates a layer. `weight` has as many numbers as `bias` times `inputs`.
    pub(super) fn new(inputs: usize, weight: Vec<f32>, bias: Vec<f32>) -> Self {
        debug_assert_eq!(weight.len(), inputs * bias.len(), "each number of the bias has a row");
        Self { inputs, weight, bias }
    }

    /// Returns all numbers that it consists of.
    pub(super) fn numbers(&self) -> impl Iterator<Item = f32> {
        self.weight.iter().chain(&self.bias).copied()
    }

    /// Returns the first number that it gives for a vector.
    pub(super) fn first_output(&self, vector: &[f32]) -> f32 {
        self.bias.first().map_or(0.0, |bias| dot(&self.weight[..self.inputs], vector) + bias)
    }

    /// Returns what it gives for each of these vectors.
    pub(super) fn apply(&self, vectors: &[&[f32]]) -> Vec<Vec<f32>> {
        let mut given = vec![Vec::with_capacity(self.bias.len()); vectors.len()];
        let rows = self.weight.chunks(self.inputs * ROWS_AT_ONCE).zip(self.bias.chunks(ROWS_AT_ONCE));
        for (rows, biases) in rows {
            for (vector, given) in vectors.iter().zip(&mut given) {
                let sums = rows.chunks(self.inputs).zip(biases).map(|(row, bias)| dot(row, vector) + bias);
                given.extend(sums);
            }
        }
        given
    }
}

/// Returns the sum of the products of two lists of the same length.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    let (ones, one_rest) = one.as_chunks::<LANES>();
    let (others, other_rest) = other.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for (one, other) in ones.iter().zip(others) {
        for ((sum, one), other) in sums.iter_mut().zip(one).zip(other) {
            *sum += one * other;
        }
    }
    let rest: f32 = one_rest.iter().zip(other_rest).map(|(one, other)| one * other).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_layer_gives_a_sum_and_a_bias_for_each_row() {
        let layer = LinearLayer::new(3, vec![1.0, 2.0, 3.0, 0.0, -1.0, 0.5], vec![10.0, -1.0]);
        let given = layer.apply(&[&[1.0, 1.0, 1.0], &[0.0, 2.0, 4.0]]);
        assert_eq!(given, [[16.0, -1.5], [26.0, -1.0]]);
        assert_eq!(layer.first_output(&[1.0, 1.0, 1.0]).to_bits(), 16.0_f32.to_bits());
        assert!(layer.apply(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn every_size_gives_what_a_plain_sum_gives(
            inputs in 1_usize..70,
            outputs in 1_usize..40,
            seed in prop::collection::vec(-1.0_f32..1.0, 97),
        ) {
            let number = |at: usize| seed[at % seed.len()];
            let weight: Vec<f32> = (0..inputs * outputs).map(number).collect();
            let bias: Vec<f32> = (0..outputs).map(|at| number(at + 5)).collect();
            let vector: Vec<f32> = (0..inputs).map(|at| number(at + 31)).collect();
            let given = LinearLayer::new(inputs, weight.clone(), bias.clone()).apply(&[&vector]);
            prop_assert_eq!(given[0].len(), outputs);
            for (at, given) in given[0].iter().enumerate() {
                let row = &weight[at * inputs..(at + 1) * inputs];
                let plain: f64 = row.iter().zip(&vector).map(|(one, other)| f64::from(*one) * f64::from(*other)).sum();
                prop_assert!((f64::from(*given) - plain - f64::from(bias[at])).abs() < 1e-4);
            }
        }
    }
}
