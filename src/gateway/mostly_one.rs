//! A list that nearly always has one item, such as the keys of a request, and then allocates nothing.

/// A list whose first item has a place of its own.
#[derive(Debug)]
pub(super) struct MostlyOne<T> {
    first: Option<T>,
    others: Vec<T>,
}

impl<T> MostlyOne<T> {
    /// Returns an empty list.
    pub(super) fn new() -> Self {
        Self { first: None, others: Vec::new() }
    }

    /// Adds an item at the end.
    pub(super) fn push(&mut self, item: T) {
        match &self.first {
            None => self.first = Some(item),
            Some(_) => self.others.push(item),
        }
    }

    /// Returns the items in the order in which they were added.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.others)
    }

    /// Returns the number of items.
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    /// Whether there is no item.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

impl<T: PartialEq> MostlyOne<T> {
    /// Whether an item is equal to this one.
    pub(super) fn contains(&self, item: &T) -> bool {
        self.iter().any(|other| other == item)
    }
}
