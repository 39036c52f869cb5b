//! The heads of one model, and what they compute from the vectors of tokens.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::Digest;

use super::file::{HeadProblem, read_layer};
use super::head::Head;
use super::layer::LinearLayer;

/// The heads that a model has.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingHeads {
    sparse: Option<LinearLayer>,
    colbert: Option<LinearLayer>,
    /// Ids of the tokens without a weight: beginning, end, padding, unknown.
    unweighted: Vec<u32>,
}

impl EmbeddingHeads {
    /// Reads the heads of a model whose vectors have `width` numbers. The tokens `unweighted` are left out of sparse
    /// vectors.
    ///
    /// # Errors
    /// The first file that cannot be used, with the name of its head.
    pub fn read(
        sparse: Option<&Path>,
        colbert: Option<&Path>,
        width: usize,
        unweighted: Vec<u32>,
    ) -> Result<Self, (Head, HeadProblem)> {
        let read = |head: Head, path: Option<&Path>| {
            path.map(|path| read_layer(path, head, width)).transpose().map_err(|problem| (head, problem))
        };
        Ok(Self { sparse: read(Head::Sparse, sparse)?, colbert: read(Head::Colbert, colbert)?, unweighted })
    }

    /// Adds all that vectors depend on to a hash.
    pub fn hash_into(&self, hash: &mut impl Digest) {
        for layer in [&self.sparse, &self.colbert] {
            hash.update([u8::from(layer.is_some())]);
            layer.iter().flat_map(LinearLayer::numbers).for_each(|number| hash.update(number.to_be_bytes()));
        }
        self.unweighted.iter().for_each(|token| hash.update(token.to_be_bytes()));
    }

    /// Returns whether the model has this head.
    pub fn has(&self, head: Head) -> bool {
        match head {
            Head::Sparse => self.sparse.is_some(),
            Head::Colbert => self.colbert.is_some(),
        }
    }

    /// Returns the weight of a token with this vector: at least 0, and 0 without a sparse head.
    pub fn weight(&self, row: &[f32]) -> f32 {
        self.sparse.as_ref().map_or(0.0, |layer| layer.first_output(row).max(0.0))
    }

    /// Returns the ColBERT vector of each token but the first, whose vector stands for the whole text. Their lengths are
    /// not 1 yet. Empty without a head. This takes a while for many tokens.
    pub fn colbert_rows(&self, rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let own: Vec<&[f32]> = rows.iter().skip(1).map(Vec::as_slice).collect();
        self.colbert.as_ref().map(|layer| layer.apply(&own)).unwrap_or_default()
    }

    /// Returns the ids of the tokens that sparse vectors leave out.
    pub fn unweighted(&self) -> &[u32] {
        &self.unweighted
    }
}

/// Returns the weights of a text by the ids of its tokens: of each id the greatest one. Those of `unweighted` and weights of
/// 0 are left out.
pub fn sparse_vector(ids: &[u32], weights: &[f32], unweighted: &[u32]) -> BTreeMap<u32, f32> {
    let mut greatest = BTreeMap::new();
    for (id, weight) in ids.iter().zip(weights).filter(|(id, weight)| **weight > 0.0 && !unweighted.contains(id)) {
        let known = greatest.entry(*id).or_insert(*weight);
        *known = weight.max(*known);
    }
    greatest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heads() -> EmbeddingHeads {
        EmbeddingHeads {
            sparse: Some(LinearLayer::new(2, vec![1.0, -1.0], vec![0.5])),
            colbert: Some(LinearLayer::new(2, vec![0.0, 1.0, 2.0, 0.0], vec![0.0, 1.0])),
            unweighted: vec![0, 2],
        }
    }

    #[test]
    fn a_weight_is_never_below_zero() {
        let heads = heads();
        let weights = [[2.0, 1.0], [1.0, 2.0], [0.0, 0.5]].map(|row| heads.weight(&row));
        assert_eq!(weights, [1.5, 0.0, 0.0]);
        let without = EmbeddingHeads { sparse: None, ..heads };
        assert_eq!(without.weight(&[2.0, 1.0]).to_bits(), 0.0_f32.to_bits());
        assert_eq!([Head::Sparse, Head::Colbert].map(|head| without.has(head)), [false, true]);
    }

    #[test]
    fn the_first_token_has_no_colbert_vector() {
        let rows = [[9.0, 9.0], [3.0, 4.0], [0.0, 1.0]].map(Vec::from);
        assert_eq!(heads().colbert_rows(&rows), [[4.0, 7.0], [1.0, 1.0]]);
        assert!(heads().colbert_rows(&rows[..1]).is_empty() && heads().colbert_rows(&[]).is_empty());
        assert!(EmbeddingHeads { colbert: None, ..heads() }.colbert_rows(&rows).is_empty());
    }

    #[test]
    fn a_token_that_stands_twice_has_the_greater_weight() {
        let ids = [0, 7, 5, 7, 5, 9, 2];
        let weights = [9.0, 0.25, 0.5, 0.75, 0.125, 0.0, 9.0];
        assert_eq!(sparse_vector(&ids, &weights, &[0, 2]), BTreeMap::from([(5, 0.5), (7, 0.75)]));
        assert!(sparse_vector(&[], &[], &[0]).is_empty());
    }

    proptest! {
        #[test]
        fn a_sparse_vector_has_each_token_once_with_its_greatest_weight(
            tokens in prop::collection::vec((0_u32..12, 0.0_f32..2.0), 0..60),
            unweighted in prop::collection::vec(0_u32..12, 0..5),
        ) {
            let (ids, weights): (Vec<u32>, Vec<f32>) = tokens.iter().copied().unzip();
            let vector = sparse_vector(&ids, &weights, &unweighted);
            for id in 0..12 {
                let of_id = tokens.iter().filter(|(other, _)| *other == id).map(|(_, weight)| *weight);
                let greatest = of_id.fold(0.0, f32::max);
                let expected = (greatest > 0.0 && !unweighted.contains(&id)).then_some(greatest);
                prop_assert_eq!(vector.get(&id).copied(), expected);
            }
        }
    }
}
