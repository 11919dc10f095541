//! Digests of several inputs, each framed by its length, so that no two lists of inputs share one.

use aws_lc_rs::digest::{Context, SHA256};

/// SHA-256 over framed inputs. The first one names what the digest is for.
pub(crate) struct Frame(Context);

impl Frame {
    pub(crate) fn new(purpose: &str) -> Self {
        let mut frame = Self(Context::new(&SHA256));
        frame.text(purpose);
        frame
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(&number.to_be_bytes());
        self
    }

    pub(crate) fn optional(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            None => self.number(0),
            Some(text) => self.number(1).text(text),
        }
    }

    /// A list: its length, then its items in the order they come.
    pub(crate) fn list<'a>(&mut self, items: impl ExactSizeIterator<Item = &'a str>) -> &mut Self {
        self.number(items.len() as u64);
        for item in items {
            self.text(item);
        }
        self
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(items: &[&[&str]]) -> [u8; 32] {
        let mut frame = Frame::new("test");
        for list in items {
            frame.list(list.iter().copied());
        }
        frame.finish()
    }

    #[test]
    fn d12_no_concatenation_collides() {
        let inputs: [&[&[&str]]; 7] = [
            &[&["a", "bc"]],
            &[&["ab", "c"]],
            &[&["abc"]],
            &[&["a"], &["bc"]],
            &[&["a", "b", "c"]],
            &[&[], &["a", "bc"]],
            &[&["a", "bc"], &[]],
        ];
        let digests: std::collections::BTreeSet<_> = inputs.iter().map(|i| digest(i)).collect();
        assert_eq!(digests.len(), inputs.len());
    }
}
