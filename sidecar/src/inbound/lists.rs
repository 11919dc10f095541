//! Lists as they pass: what their caller may see of them, and what the server says in them of the headers that mirror the
//! arguments of its tools (C10).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use behalf_policy::bundle::Policy;
use behalf_policy::claims::Caller;
use behalf_policy::decide::{Operation, shows};
use behalf_policy::envelope::{
    AnnotationError, EnvelopeError, EnvelopeReason, Era, HeaderField, ListKind, Message, MirroredParams,
    PARAM_PREFIX, Target,
};
use behalf_policy::ids::Timestamp;
use behalf_policy::listing::Onlooker;
use http::{HeaderMap, HeaderName};

use crate::bundle_source::Active;
use crate::clock::Clock;

/// A server has no more tools with such headers than this.
const MAX_TOOLS: usize = 4096;
/// Two lists that say different things of one tool within so many seconds may both be in use.
const SETTLES: u32 = 600;

/// What the server said last of the headers of its tools, to whomever. A cheap clone is the same.
#[derive(Clone, Default)]
pub(super) struct Mirrored(Arc<Mutex<BTreeMap<String, Said>>>);

struct Said {
    params: Arc<MirroredParams>,
    /// From when on every caller can be held to it.
    settled: Timestamp,
}

impl Mirrored {
    fn learn(&self, tool: &str, params: MirroredParams, now: Timestamp) {
        let mut tools = self.tools();
        let full = tools.len() >= MAX_TOOLS;
        match tools.get_mut(tool) {
            Some(said) if *said.params == params => {}
            Some(said) => *said = Said { params: Arc::new(params), settled: now.plus(SETTLES) },
            None if params.is_empty() || full => {}
            None => {
                tools.insert(tool.to_owned(), Said { params: Arc::new(params), settled: now });
            }
        }
    }

    /// Checks that the headers of a call say what its arguments say, as far as it is known which do.
    pub(super) fn check(
        &self,
        message: &Message,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<(), EnvelopeError> {
        let Target::ToolCall { name } = message.target() else { return Ok(()) };
        let (params, demanded) = match self.tools().get(name) {
            Some(said) => (Arc::clone(&said.params), now >= said.settled),
            None => return Ok(()),
        };
        params.check(message, |name| field(headers, name), demanded)?;
        // Some servers read `_` as `-`: what they would take for a header that was compared is refused.
        let alike = |name: &str| name.replace('_', "-");
        let known: Vec<&str> = params.headers().collect();
        let twin = |name: &HeaderName| {
            let name = name.as_str();
            let ours = name.starts_with(PARAM_PREFIX) && !known.contains(&name);
            ours && known.iter().any(|known| alike(known) == alike(name))
        };
        if message.era() == Era::Modern && headers.keys().any(twin) {
            return Err(EnvelopeError::from(EnvelopeReason::HeaderRepeated).of(message));
        }
        Ok(())
    }

    fn tools(&self) -> MutexGuard<'_, BTreeMap<String, Said>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn field<'h>(headers: &'h HeaderMap, name: &str) -> HeaderField<'h> {
    HeaderField::from_values(headers.get_all(name).iter().map(|value| value.to_str().ok()))
}

/// Looks at a list for one caller.
pub(super) struct Viewer {
    pub(super) active: Arc<Active>,
    pub(super) caller: Arc<Caller>,
    pub(super) era: Era,
    pub(super) mirrored: Mirrored,
    pub(super) clock: Clock,
}

impl Onlooker for Viewer {
    fn keeps(&self, kind: ListKind, name: &str) -> bool {
        let tool = (kind == ListKind::Tools).then_some(name);
        let denied = self.active.bundle.deny.refuses(&self.caller.subject, || tool);
        let shown = |policy: &Policy| shows(policy, &self.caller, Operation::of_entry(kind, name));
        !denied && self.active.policy().is_some_and(|(policy, _)| shown(policy))
    }

    fn mirrors(&self, tool: &str, params: &dyn Fn() -> Result<MirroredParams, AnnotationError>) {
        // Versions before do not know such headers, and no row's tool is called by nobody.
        let known = |policy: &Policy| policy.server.tools.contains_key(tool);
        if self.era == Era::Modern && self.active.policy().is_some_and(|(policy, _)| known(policy)) {
            // No client calls a tool with an invalid definition, and none of its headers means anything.
            self.mirrored.learn(tool, params().unwrap_or_default(), self.clock.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use behalf_policy::envelope::{HeaderView, Limits};
    use behalf_policy::listing::filter_list;
    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000);

    #[derive(Default)]
    struct Taker(RefCell<Option<MirroredParams>>);

    impl Onlooker for Taker {
        fn keeps(&self, _: ListKind, _: &str) -> bool {
            true
        }

        fn mirrors(&self, _: &str, params: &dyn Fn() -> Result<MirroredParams, AnnotationError>) {
            *self.0.borrow_mut() = params().ok();
        }
    }

    fn said(properties: &Value) -> MirroredParams {
        let taker = Taker::default();
        let tool = json!({"name": "t", "inputSchema": {"properties": properties}});
        let list = json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": [tool]}}).to_string();
        filter_list(list.as_bytes(), ListKind::Tools, &taker, Era::Modern, &Limits::default()).unwrap();
        taker.0.take().unwrap()
    }

    fn region() -> MirroredParams {
        said(&json!({"region": {"type": "string", "x-mcp-header": "My_Region"}}))
    }

    fn checked(mirrored: &Mirrored, headers: &[(&'static str, &'static str)], now: Timestamp) -> bool {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
        let params = json!({"name": "t", "arguments": {"region": "west"}, "_meta": meta});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        let view = HeaderView {
            protocol_version: HeaderField::once("2026-07-28"),
            method: HeaderField::once("tools/call"),
            name: HeaderField::once("t"),
        };
        let message = Message::read(body.as_bytes(), &view, &Limits::default()).unwrap();
        let map = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect();
        mirrored.check(&message, &map, now).is_ok()
    }

    const RIGHT: (&str, &str) = ("mcp-param-my_region", "west");
    const WRONG: (&str, &str) = ("mcp-param-my_region", "east");

    #[test]
    fn c10_what_no_list_has_said_passes() {
        let mirrored = Mirrored::default();
        assert!(checked(&mirrored, &[], NOW) && checked(&mirrored, &[WRONG], NOW));
        mirrored.learn("other", region(), NOW);
        mirrored.learn("t", MirroredParams::default(), NOW);
        assert!(checked(&mirrored, &[WRONG], NOW));
        assert_eq!(mirrored.tools().len(), 1, "what mirrors nothing takes no room");
    }

    #[test]
    fn c10_the_last_list_counts_and_lists_that_differ_demand_nothing_for_a_while() {
        let mirrored = Mirrored::default();
        mirrored.learn("t", region(), NOW);
        assert!(checked(&mirrored, &[RIGHT], NOW));
        assert!(!checked(&mirrored, &[], NOW) && !checked(&mirrored, &[WRONG], NOW));
        mirrored.learn("t", MirroredParams::default(), NOW.plus(1));
        assert!(checked(&mirrored, &[], NOW.plus(1)) && checked(&mirrored, &[WRONG], NOW.plus(1)));
        mirrored.learn("t", region(), NOW.plus(2));
        for _ in 0..2 {
            assert!(checked(&mirrored, &[], NOW.plus(601)), "whoever saw the other list cannot know");
            assert!(!checked(&mirrored, &[WRONG], NOW.plus(601)), "what is said is still true");
            // The same again is no other list.
            mirrored.learn("t", region(), NOW.plus(300));
        }
        assert!(!checked(&mirrored, &[], NOW.plus(602)));
    }

    #[test]
    fn c10_d15_a_twin_of_a_known_header_is_refused() {
        let mirrored = Mirrored::default();
        mirrored.learn("t", region(), NOW);
        assert!(!checked(&mirrored, &[RIGHT, ("mcp-param-my-region", "east")], NOW));
        assert!(checked(&mirrored, &[RIGHT, ("mcp-param-my-regions", "east")], NOW));
    }

    #[test]
    fn c10_what_is_remembered_is_bounded() {
        let mirrored = Mirrored::default();
        for n in 0..MAX_TOOLS + 10 {
            mirrored.learn(&format!("t{n}"), region(), NOW);
        }
        assert_eq!(mirrored.tools().len(), MAX_TOOLS);
    }
}
