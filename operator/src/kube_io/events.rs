//! Events (`events.k8s.io`) for what changed.

use std::sync::Arc;

use behalf_crds::names;
use behalf_plan::{EventIntent, EventKind};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::lease::Leadership;
use crate::metrics::{Metrics, Object};

/// Writes Events.
#[derive(Clone)]
pub struct Events {
    client: Client,
    leadership: Leadership,
    reporter: Reporter,
    metrics: Arc<Metrics>,
}

impl Events {
    /// Events reported by `instance`, the name of the operator's pod.
    #[must_use]
    pub fn new(client: Client, instance: Option<String>, metrics: Arc<Metrics>) -> Self {
        let reporter = Reporter { controller: names::EVENT_CONTROLLER.to_owned(), instance };
        Self { client, leadership: Leadership::always(), reporter, metrics }
    }

    /// The same, as long as this replica leads.
    #[must_use]
    pub fn led(self, leadership: Leadership) -> Self {
        Self { leadership, ..self }
    }

    /// Writes one Event each. One that cannot be written is logged: the status says the same.
    pub async fn publish(&self, intents: Vec<EventIntent>, object: &ObjectReference) {
        for intent in intents {
            if !self.leadership.leads() {
                return;
            }
            let event = Event {
                type_: match intent.kind {
                    EventKind::Normal => EventType::Normal,
                    EventKind::Warning => EventType::Warning,
                },
                reason: intent.reason,
                note: Some(intent.note),
                action: intent.action,
                secondary: None,
            };
            // A recorder counts up what it said of an object for the same reason and keeps the first note. Ours are
            // transitions, and the note names the cause: each is said anew.
            let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
            match recorder.publish(&event, object).await {
                Ok(()) => self.metrics.wrote(Object::Event),
                Err(error) => tracing::warn!(error = %error, reason = event.reason, "cannot write an event"),
            }
        }
    }
}
