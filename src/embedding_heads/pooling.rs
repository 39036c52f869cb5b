//! How the vectors of tokens become the one dense vector of a text.

/// Which vectors of tokens count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenPooling {
    /// That of the first token (CLS).
    First,
    /// That of the last token.
    Last,
    /// Their mean.
    Mean,
}

impl TokenPooling {
    /// Returns the pooling that llama.cpp calls by this number (`enum llama_pooling_type`). Models that say nothing, or
    /// something else, have that of BGE-M3.
    pub fn of_llama(number: Option<u32>) -> Self {
        match number {
            Some(1) => Self::Mean,
            Some(3) => Self::Last,
            _ => Self::First,
        }
    }
}

/// The vectors of the tokens of one text as they come, pooled.
#[derive(Debug)]
pub struct PooledTokens {
    pooling: TokenPooling,
    /// Sums of 64 bits, so that the mean of many vectors keeps its digits.
    sums: Vec<f64>,
    tokens: usize,
}

impl PooledTokens {
    /// Creates a text without tokens.
    pub fn new(pooling: TokenPooling) -> Self {
        Self { pooling, sums: Vec::new(), tokens: 0 }
    }

    /// Adds the vector of the next token.
    pub fn add(&mut self, row: &[f32]) {
        self.tokens += 1;
        match self.pooling {
            TokenPooling::First if self.tokens > 1 => {}
            TokenPooling::First | TokenPooling::Last => {
                self.sums = row.iter().map(|number| f64::from(*number)).collect()
            }
            TokenPooling::Mean => {
                self.sums.resize(row.len(), 0.0);
                self.sums.iter_mut().zip(row).for_each(|(sum, number)| *sum += f64::from(*number));
            }
        }
    }

    /// Returns the number of tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Returns the dense vector, which is not normalised; empty without tokens.
    pub fn into_vector(self) -> Vec<f32> {
        let count = if self.pooling == TokenPooling::Mean { self.tokens.max(1) } else { 1 };
        #[expect(clippy::cast_precision_loss, reason = "no text has that many tokens")]
        let count = count as f64;
        #[expect(clippy::cast_possible_truncation, reason = "the numbers came as 32 bits")]
        let vector = self.sums.iter().map(|sum| (sum / count) as f32).collect();
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_tokens_are_pooled_as_llama_cpp_does() {
        for (number, expected) in [
            (None, [1.0, 2.0]),
            (Some(0), [1.0, 2.0]),
            (Some(2), [1.0, 2.0]),
            (Some(3), [5.0, 0.0]),
            (Some(1), [3.0, -1.0]),
        ] {
            let mut pooled = PooledTokens::new(TokenPooling::of_llama(number));
            [[1.0, 2.0], [3.0, -5.0], [5.0, 0.0]].iter().for_each(|row| pooled.add(row));
            assert_eq!(pooled.tokens(), 3);
            assert_eq!(pooled.into_vector(), expected, "{number:?}");
        }
        assert!(PooledTokens::new(TokenPooling::Mean).into_vector().is_empty());
    }
}
