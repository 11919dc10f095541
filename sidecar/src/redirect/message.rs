//! Just enough of the `nf_tables` netlink protocol to write one batch of rules and to read its verdict.
//!
//! Constants are those of the kernel's `include/uapi/linux/netfilter/nf_tables.h` and `nfnetlink.h`.

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NLMSG_ERROR: u16 = 2;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYS_NFTABLES: u16 = 10;
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NLA_F_NESTED: u16 = 0x8000;
const HEADER: usize = 16;

const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;

/// Where a base chain hangs.
#[derive(Clone, Copy)]
pub(super) struct Hook {
    pub(super) kind: &'static str,
    pub(super) number: u32,
    pub(super) priority: i32,
    pub(super) accept: bool,
}

/// What a rule is made of.
#[derive(Clone)]
pub(super) enum Expression {
    /// Loads a piece of meta data into the register.
    Meta(u32),
    /// Loads the state of the connection into the register.
    ConnectionState,
    /// Loads which way of the connection the packet goes into the register, one byte.
    Direction,
    /// Loads bytes of the transport header into the register.
    Transport {
        /// Where they begin.
        offset: u32,
        /// How many.
        length: u32,
    },
    /// Keeps these bits of the register.
    Mask(Vec<u8>),
    /// Goes on when the register is equal to these bytes, or not equal, at least, at most.
    Compare(Comparison, Vec<u8>),
    /// Ends with a verdict: true accepts, false drops.
    Verdict(bool),
    /// Sends the connection to this port of this host.
    Redirect(u16),
}

#[derive(Clone, Copy)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    AtLeast,
    AtMost,
}

pub(super) const META_IIFNAME: u32 = 6;
pub(super) const META_OIFNAME: u32 = 7;
pub(super) const META_SKUID: u32 = 10;
pub(super) const META_L4PROTO: u32 = 16;

/// Messages of one transaction: all of it is applied, or nothing.
pub(super) struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    table: &'static str,
}

impl Batch {
    /// A batch that first makes sure there is no older table of this name, then makes it.
    pub(super) fn replacing(table: &'static str) -> Self {
        let mut batch = Self { bytes: Vec::new(), sequence: 0, table };
        batch.control(BATCH_BEGIN);
        let name = |attributes: &mut Attributes| attributes.text(1, table);
        // Deleting what is not there fails: so it is made first.
        batch.message(NEWTABLE, NLM_F_CREATE, name);
        batch.message(DELTABLE, 0, name);
        batch.message(NEWTABLE, NLM_F_CREATE, name);
        batch
    }

    pub(super) fn chain(&mut self, chain: &str, hook: Hook) {
        let table = self.table;
        self.message(NEWCHAIN, NLM_F_CREATE, |attributes| {
            attributes.text(1, table);
            attributes.text(3, chain);
            attributes.nest(4, |at| {
                at.number(1, hook.number);
                at.bytes(2, &hook.priority.to_be_bytes());
            });
            attributes.number(5, u32::from(hook.accept));
            attributes.text(7, hook.kind);
        });
    }

    pub(super) fn rule(&mut self, chain: &str, expressions: &[Expression]) {
        let table = self.table;
        self.message(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |attributes| {
            attributes.text(1, table);
            attributes.text(2, chain);
            attributes.nest(4, |list| {
                for expression in expressions {
                    expression.write(list);
                }
            });
        });
    }

    /// The bytes to send, and the sequence number whose acknowledgement means that all is applied.
    pub(super) fn finish(mut self) -> (Vec<u8>, u32) {
        self.control(BATCH_END);
        (self.bytes, self.sequence.saturating_sub(1))
    }

    fn control(&mut self, kind: u16) {
        let [high, low] = SUBSYS_NFTABLES.to_be_bytes();
        self.raw(kind, NLM_F_REQUEST, &[NFPROTO_UNSPEC, 0, high, low]);
    }

    fn message(&mut self, kind: u16, flags: u16, write: impl FnOnce(&mut Attributes)) {
        let mut attributes = Attributes(vec![NFPROTO_INET, 0, 0, 0]);
        write(&mut attributes);
        self.raw((SUBSYS_NFTABLES << 8) | kind, NLM_F_REQUEST | NLM_F_ACK | flags, &attributes.0);
    }

    fn raw(&mut self, kind: u16, flags: u16, payload: &[u8]) {
        self.sequence = self.sequence.saturating_add(1);
        let length = u32::try_from(HEADER.saturating_add(payload.len())).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        pad(&mut self.bytes);
    }
}

impl Expression {
    fn write(&self, list: &mut Attributes) {
        /// The one register that is used, and the one of verdicts.
        const REGISTER: u32 = 1;
        const VERDICT: u32 = 0;
        match self {
            Self::Meta(key) => list.expression("meta", |at| {
                at.number(1, REGISTER);
                at.number(2, *key);
            }),
            Self::ConnectionState => list.expression("ct", |at| {
                at.number(1, REGISTER);
                at.number(2, 0);
            }),
            Self::Direction => list.expression("ct", |at| {
                at.number(1, REGISTER);
                at.number(2, 1);
            }),
            Self::Transport { offset, length } => list.expression("payload", |at| {
                at.number(1, REGISTER);
                at.number(2, 2);
                at.number(3, *offset);
                at.number(4, *length);
            }),
            Self::Mask(mask) => list.expression("bitwise", |at| {
                at.number(1, REGISTER);
                at.number(2, REGISTER);
                at.number(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
                at.nest(4, |data| data.bytes(1, mask));
                at.nest(5, |data| data.bytes(1, &vec![0; mask.len()]));
            }),
            Self::Compare(comparison, value) => list.expression("cmp", |at| {
                at.number(1, REGISTER);
                at.number(2, comparison.code());
                at.nest(3, |data| data.bytes(1, value));
            }),
            Self::Verdict(accept) => list.expression("immediate", |at| {
                at.number(1, VERDICT);
                at.nest(2, |data| data.nest(2, |verdict| verdict.number(1, u32::from(*accept))));
            }),
            Self::Redirect(port) => {
                list.expression("immediate", |at| {
                    at.number(1, REGISTER);
                    at.nest(2, |data| data.bytes(1, &port.to_be_bytes()));
                });
                list.expression("redir", |at| {
                    at.number(1, REGISTER);
                    // NF_NAT_RANGE_PROTO_SPECIFIED
                    at.number(3, 2);
                });
            }
        }
    }
}

impl Comparison {
    fn code(self) -> u32 {
        match self {
            Self::Equal => 0,
            Self::NotEqual => 1,
            Self::AtMost => 3,
            Self::AtLeast => 5,
        }
    }
}

/// Attributes of a message; numbers are big-endian, as `nf_tables` has them.
struct Attributes(Vec<u8>);

impl Attributes {
    fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        pad(&mut self.0);
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let mut inner = Self(Vec::new());
        write(&mut inner);
        self.bytes(kind | NLA_F_NESTED, &inner.0);
    }

    fn expression(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.nest(1, |element| {
            element.text(1, name);
            element.nest(2, write);
        });
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// What the kernel says of one message: its sequence number and 0 or an errno.
pub(super) fn verdicts(mut datagram: &[u8]) -> Vec<(u32, i32)> {
    let mut found = Vec::new();
    while let Some((length, kind, sequence, error)) = verdict(datagram) {
        if kind == NLMSG_ERROR {
            found.push((sequence, error.saturating_neg()));
        }
        match datagram.get(length.next_multiple_of(4).max(HEADER)..) {
            Some(rest) => datagram = rest,
            None => break,
        }
    }
    found
}

fn verdict(bytes: &[u8]) -> Option<(usize, u16, u32, i32)> {
    let four = |at: usize| bytes.get(at..at.checked_add(4)?)?.try_into().ok();
    let length = usize::try_from(u32::from_ne_bytes(four(0)?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let sequence = u32::from_ne_bytes(four(8)?);
    let error = i32::from_ne_bytes(four(HEADER)?);
    Some((length, kind, sequence, error))
}
