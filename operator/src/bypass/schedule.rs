//! Which pod is tried when. A value that takes the time as an argument.

use std::collections::BTreeMap;

use behalf_plan::bypass::{Standing, Told, Trial};
use tokio::time::Instant;

use super::findings::Standings;
use super::trial::Subject;
use super::{AGAIN, EVERY};

/// The pods that run.
#[derive(Default)]
pub struct Schedule(BTreeMap<String, Entry>);

struct Entry {
    subject: Subject,
    standing: Standing,
    due: Instant,
    under_way: bool,
}

impl Schedule {
    /// Takes in all pods that run; those that are not among them are forgotten. One that differs from before is due at
    /// once; what its last trial gave counts until then.
    pub fn see(&mut self, pods: impl Iterator<Item = (Subject, Option<Told>)>, now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for (subject, told) in pods {
            let entry = match before.remove(&subject.uid) {
                Some(held) => {
                    let due = if held.subject == subject { held.due } else { now };
                    Entry { due, standing: Standing { told, ..held.standing }, subject, ..held }
                }
                None => {
                    Entry { subject, standing: Standing { told, trial: None }, due: now, under_way: false }
                }
            };
            self.0.insert(entry.subject.uid.clone(), entry);
        }
    }

    /// The pod that waits longest, if one is due and has told enough to be tried; from now on it is being tried.
    pub fn take(&mut self, now: Instant) -> Option<Subject> {
        let waiting =
            self.0.values_mut().filter(|it| !it.under_way && it.due <= now && it.subject.can_be_tried());
        let entry = waiting.min_by_key(|it| it.due)?;
        entry.under_way = true;
        Some(entry.subject.clone())
    }

    /// A trial ended; none: it could not be made. `jitter` is a factor about 1.
    pub fn done(&mut self, tried: &Subject, trial: Option<Trial>, jitter: f64, now: Instant) {
        let Some(entry) = self.0.get_mut(&tried.uid) else { return };
        let clean = trial.as_ref().is_some_and(Trial::is_clean);
        entry.under_way = false;
        entry.standing.trial = trial;
        if entry.subject == *tried {
            entry.due = now + if clean { EVERY.mul_f64(jitter) } else { AGAIN };
        }
    }

    /// What is known of every pod.
    #[must_use]
    pub fn standings(&self) -> Standings {
        let known = self.0.iter().map(|(uid, entry)| {
            let identity = (entry.subject.namespace.clone(), entry.subject.identity.clone());
            (uid.clone(), (identity, entry.standing.clone()))
        });
        known.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use behalf_plan::bypass::{Answer, Reached};
    use behalf_policy::feed::{Listener, ProofKey, Protocol};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn subject() -> Subject {
        Subject {
            namespace: "hr".into(),
            identity: "hr-tools".into(),
            pod: "hr-1".into(),
            uid: "u1".into(),
            addresses: ["10.0.0.1".parse().unwrap()].into(),
            revision: Some("r1".into()),
            server_port: 8000,
            extra_ports: [].into(),
            boot: "b1".into(),
            listeners: [].into(),
            squatted: [].into(),
            proof_key: Some(ProofKey::new("k".repeat(43))),
        }
    }

    fn clean() -> Trial {
        let reached = Reached { control: Answer::Behalf, server: Answer::Behalf, open: [].into() };
        Trial { addresses: [("10.0.0.1".parse().unwrap(), reached)].into(), untried: [].into() }
    }

    fn see(schedule: &mut Schedule, subject: &Subject, now: Instant) {
        schedule.see([(subject.clone(), Some(Told::default()))].into_iter(), now);
    }

    #[test]
    fn a_pod_is_tried_once_and_then_at_every_interval() {
        let (mut schedule, now, subject) = (Schedule::default(), Instant::now(), subject());
        see(&mut schedule, &subject, now);
        assert_eq!(schedule.take(now).as_ref(), Some(&subject));
        assert_eq!(schedule.take(now + EVERY), None, "it is being tried");
        schedule.done(&subject, Some(clean()), 1.0, now);
        see(&mut schedule, &subject, now + SECOND);
        assert_eq!(schedule.take(now + EVERY - SECOND), None);
        assert!(schedule.take(now + EVERY).is_some());
    }

    #[test]
    fn fault_and_failure_are_looked_at_again_soon() {
        let silent = Reached { control: Answer::Nothing, server: Answer::Nothing, open: [].into() };
        let silent = Trial { addresses: [("10.0.0.1".parse().unwrap(), silent)].into(), untried: [].into() };
        for trial in [None, Some(silent)] {
            let (mut schedule, now, subject) = (Schedule::default(), Instant::now(), subject());
            see(&mut schedule, &subject, now);
            schedule.take(now);
            schedule.done(&subject, trial, 1.0, now);
            assert_eq!(schedule.take(now + AGAIN - SECOND), None);
            assert!(schedule.take(now + AGAIN).is_some());
        }
    }

    #[test]
    fn whatever_changes_about_a_pod_makes_it_due_at_once() {
        let listener = Listener { protocol: Protocol::Tcp, port: 9090 };
        let address = "fd00::1".parse().unwrap();
        for change in [
            &(|it: &mut Subject| it.boot = "b2".into()) as &dyn Fn(&mut Subject),
            &|it| it.listeners = [listener].into(),
            &|it| it.squatted = [15101].into(),
            &|it| it.addresses = [address].into(),
            &|it| it.revision = Some("r2".into()),
            &|it| it.server_port = 8001,
            &|it| it.extra_ports = [listener].into(),
            &|it| it.proof_key = Some(ProofKey::new("l".repeat(43))),
        ] {
            let (mut schedule, now, subject) = (Schedule::default(), Instant::now(), subject());
            see(&mut schedule, &subject, now);
            schedule.take(now);
            schedule.done(&subject, Some(clean()), 1.0, now);
            let mut other = subject.clone();
            change(&mut other);
            see(&mut schedule, &other, now + SECOND);
            assert_eq!(schedule.take(now + SECOND), Some(other));
        }
    }

    #[test]
    fn a_change_during_a_trial_is_tried_after_it() {
        let (mut schedule, now, first) = (Schedule::default(), Instant::now(), subject());
        see(&mut schedule, &first, now);
        schedule.take(now);
        let second = Subject { boot: "b2".into(), ..first.clone() };
        see(&mut schedule, &second, now + SECOND);
        assert_eq!(schedule.take(now + SECOND), None);
        schedule.done(&first, Some(clean()), 1.0, now + SECOND);
        assert_eq!(schedule.take(now + SECOND), Some(second));
    }

    #[test]
    fn without_a_report_or_an_address_there_is_nothing_to_try_and_who_is_gone_is_forgotten() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.see([(Subject { proof_key: None, ..subject() }, None)].into_iter(), now);
        assert_eq!(schedule.take(now), None);
        see(&mut schedule, &Subject { addresses: [].into(), ..subject() }, now);
        assert_eq!(schedule.take(now), None);
        assert_eq!(schedule.standings().len(), 1);
        schedule.see([].into_iter(), now);
        assert!(schedule.standings().is_empty());
        schedule.done(&subject(), Some(clean()), 1.0, now);
        assert!(schedule.standings().is_empty());
    }
}
