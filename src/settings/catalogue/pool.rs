//! Pools: the models of one kind that share the requests which name no model.
//!
//! Owns which models make a pool. In which order they are tried is decided in `fleet`.

/// The place of a model among those of its kind that `model_list` alone describes. Requests that name no model go to
/// any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolPlace {
    /// The lowest `priority` of its entries, if one sets it; the lowest number comes first.
    pub priority: Option<u32>,
}

/// What a model is in the pool of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolRole {
    /// One of the models that `model_list` alone describes.
    Member,
    /// A local model, which serves when none of the members can.
    LastResort,
}

impl PoolRole {
    /// Returns whether the models of one kind, with these roles, make a pool: each has a role, and one is a member.
    pub fn make_pool(roles: impl IntoIterator<Item = Option<Self>>) -> bool {
        let mut has_member = false;
        roles.into_iter().all(|role| {
            has_member |= role == Some(Self::Member);
            role.is_some()
        }) && has_member
    }
}

#[cfg(test)]
mod tests {
    use super::PoolRole::{self, LastResort, Member};

    #[test]
    fn a_pool_needs_a_member_and_a_role_for_each_model() {
        for (roles, is_pool) in [
            (&[Some(Member), Some(Member)][..], true),
            (&[Some(LastResort), Some(Member)], true),
            (&[Some(LastResort), Some(LastResort)], false),
            (&[Some(Member), None], false),
            (&[], false),
        ] {
            assert_eq!(PoolRole::make_pool(roles.iter().copied()), is_pool, "{roles:?}");
        }
    }
}
