//! The real provider turns its keys over, goes away, or stops to answer: each ends as its `IdentityProvider` declares.
//! What a provider can do beyond that (errors, pages, endless answers) is shown with one that lies, in the sidecar's tests.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use behalf_e2e::host::Process;
use behalf_e2e::realm::{RealmKey, signs_with};
use behalf_e2e::world::LOGGED;
use behalf_e2e::{ALL_SCOPES, Answer, Pod, Request, Token, Undo, World, keycloak, mcp, payroll, until};
use serde_json::json;

/// A stream of calls that nobody stops ends after so many.
const MOST: usize = 2000;
/// The shortest time between two fetches that unknown key ids cause, in these tests, seconds.
const COOLDOWN: u32 = 2;
/// A question to a provider takes 10 s at most. What takes longer than this hangs, however busy the machine is.
const ANSWERED: Duration = Duration::from_mins(1);

fn alice(world: &World) -> Result<Token> {
    keycloak::login(world, "agent-test", "alice", ALL_SCOPES)
}

fn search(token: &str) -> Request {
    mcp::call("directory.search", &json!({"query": "bob"})).bearer(token)
}

/// A call through everything: token, exchange, payroll.
fn served(world: &World, token: &Token) -> Result<Answer> {
    let answer = mcp::salary(&token.text, "bob").send(world)?;
    let saw = answer.saw().with_context(|| format!("payroll saw nothing of {answer:?}"))?;
    ensure!(saw["sub"] == token.subject()?.as_str(), "payroll saw {}", saw["sub"]);
    Ok(answer)
}

fn key_of(token: &Token) -> Result<String> {
    Ok(keycloak::part(&token.text, 0)?["kid"].as_str().context("kid")?.to_owned())
}

/// The claims of a good token under a key that nobody has.
fn of_nobodys_key(good: &Token, number: usize) -> Result<String> {
    let head = json!({"alg": "RS256", "typ": "JWT", "kid": format!("nobody-{number}")}).to_string();
    let claims = good.text.split('.').nth(1).context("claims")?;
    Ok(format!("{}.{claims}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode([7; 256])))
}

/// Calls one after the other, each of which must be served, until told to stop; counted by the key of their tokens.
#[derive(Default)]
struct Stream {
    stop: AtomicBool,
    served: Mutex<BTreeMap<String, usize>>,
}

impl Stream {
    fn run(&self, world: &World, token: impl Fn() -> Result<Token>) -> Result<()> {
        for _ in 0..MOST {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let token = token()?;
            served(world, &token)?;
            *self.lock().entry(key_of(&token)?).or_default() += 1;
        }
        bail!("nobody stopped the calls")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, usize>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for more calls with tokens of that key.
    fn goes_on(&self, key: &str) -> Result<()> {
        let count = || self.lock().get(key).copied().unwrap_or(0);
        let enough = count() + 3;
        until("calls with tokens of this key are served", LOGGED, || Ok((count() >= enough).then_some(())))
    }

    /// Runs while something else is done. What a lost call says comes before what was not reached because of it.
    fn during<T>(
        &self,
        world: &World,
        token: impl Fn() -> Result<Token> + Sync,
        act: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.stop.store(false, Ordering::Relaxed);
        thread::scope(|scope| {
            let calls = scope.spawn(|| self.run(world, &token));
            let done = act();
            self.stop.store(true, Ordering::Relaxed);
            calls.join().map_err(|_| anyhow!("the calls panicked"))??;
            done
        })
    }
}

/// Fetches of the provider's keys so far, once there was none for longer than the cool-down.
fn fetches_at_rest(pod: &Pod<'_>) -> Result<u64> {
    let mut last = (pod.metric("key_fetches_total")?, Instant::now());
    until("no keys are fetched for a while", Duration::from_mins(1), || {
        let now = pod.metric("key_fetches_total")?;
        if now != last.0 {
            last = (now, Instant::now());
        }
        Ok((last.1.elapsed() > Duration::from_secs(u64::from(COOLDOWN) + 1)).then_some(now))
    })
}

#[test]
fn a20_d8_keys_that_are_turned_over_under_load_cost_no_call_and_one_fetch() -> Result<()> {
    let world = World::get()?;
    let pod = world.pod()?;
    let _cooldown = world.provider("keys", &json!({"refreshCooldown": format!("{COOLDOWN}s")}))?;
    let (old, old_id) = (RealmKey::active(world)?, signs_with(world)?);
    let kept = alice(world)?;
    assert_eq!(key_of(&kept)?, old_id);
    served(world, &kept)?;
    let before = fetches_at_rest(&pod)?;

    // A key comes that signs from now on; the one before signs no more, and is still published.
    let (fresh, lasting) = (Stream::default(), Stream::default());
    let turn = || {
        fresh.goes_on(&old_id)?;
        let new = old.succeed("e2e-successor")?;
        let as_it_was = Undo::new(|| {
            old.set(true, true)?;
            new.now()?;
            let taken = || Ok((search(&alice(world)?.text).send(world)?.status == 200).then_some(()));
            until("tokens of the old key are taken again", LOGGED, taken)
        });
        let new_id = signs_with(world)?;
        assert_ne!(new_id, old_id);
        fresh.goes_on(&new_id)?;
        old.set(false, true)?;
        fresh.goes_on(&new_id)?;
        lasting.goes_on(&old_id)?;
        Ok((as_it_was, new_id))
    };
    let (as_it_was, new_id) =
        fresh.during(world, || alice(world), || lasting.during(world, || Ok(kept.clone()), turn))?;
    assert_eq!(pod.metric("key_fetches_total")?, before + 1, "the new key's id made one fetch");

    // The old key is no longer published. Until the keys are fetched again its tokens are what they were.
    fresh.during(
        world,
        || alice(world),
        || {
            old.set(false, false)?;
            assert!(
                keycloak::keys(world)?.iter().all(|key| key["kid"] != old_id.as_str()),
                "it is published"
            );
            fresh.goes_on(&new_id)?;
            assert_eq!(search(&kept.text).send(world)?.status, 200);
            assert_eq!(pod.metric("key_fetches_total")?, before + 1);
            // Somebody sends ids of keys that nobody has, each another.
            let began = Instant::now();
            let sent = (0..20).map(|number| search(&of_nobodys_key(&kept, number)?).start(world));
            for sent in sent.collect::<Result<Vec<_>>>()? {
                assert_eq!(sent.answer()?.status, 401);
            }
            let fetches = pod.metric("key_fetches_total")? - before - 1;
            // By a clock of whole seconds a cool-down may be up to a second shorter than it says.
            let most = 1 + (began.elapsed().as_secs() + 2) / u64::from(COOLDOWN);
            assert!((1..=most).contains(&fetches), "{fetches} fetches in {:?}", began.elapsed());
            let refused = search(&kept.text).send(world)?;
            assert_eq!((refused.status, &pod.record_of(&refused)?["reason"]), (401, &json!("UnknownKey")));
            fresh.goes_on(&new_id)
        },
    )?;
    eprintln!("turned over: {:?} and {:?} calls by key, none lost", fresh.lock(), lasting.lock());
    as_it_was.now()
}

/// Tokens from before an outage: one whose exchange is kept, two that were never exchanged.
struct Tokens {
    warm: Token,
    cold: [Token; 2],
}

impl Tokens {
    fn new(world: &World) -> Result<Self> {
        let tokens = Self { warm: alice(world)?, cold: [alice(world)?, alice(world)?] };
        served(world, &tokens.warm)?;
        Ok(tokens)
    }

    /// What needs no word of the provider.
    fn go_on(&self, world: &World, pod: &Pod<'_>) -> Result<()> {
        for token in [&self.warm, &self.cold[0], &self.cold[1]] {
            assert_eq!(search(&token.text).send(world)?.status, 200, "keys are held");
        }
        let answer = served(world, &self.warm)?;
        assert_eq!(pod.records_of(&answer)?[1]["exchange"], "Cached");
        Ok(())
    }

    /// With the provider back, what failed is asked anew and made.
    fn recover(&self, world: &World, pod: &Pod<'_>) -> Result<()> {
        until("the provider answers again", Duration::from_mins(1), || keycloak::keys(world).map(Some))?;
        for token in &self.cold {
            let answer = served(world, token)?;
            assert_eq!(pod.records_of(&answer)?[1]["exchange"], "Made");
        }
        Ok(())
    }
}

/// The answer to a call whose token had to be exchanged and could not: the server got a 503 with the reason, nothing went on.
fn not_exchanged(pod: &Pod<'_>, answer: &Answer, reasons: &[&str]) -> Result<()> {
    let told = answer.tool().with_context(|| format!("the tool said nothing: {answer:?}"))?;
    let reason = told["payroll"]["error"]["reason"].as_str().unwrap_or_default();
    assert!(reasons.contains(&reason) && told["status"] == 503, "{told}");
    let [inbound, outbound] = &pod.records_of(answer)?[..] else { bail!("not two records") };
    assert_eq!(inbound["decision"], "Permit", "the call itself was good");
    assert_eq!((&outbound["decision"], &outbound["reason"]), (&json!("Refuse"), &json!(reason)));
    assert_eq!((&outbound["direction"], &outbound["status"]), (&json!("Outbound"), &json!(503)));
    Ok(())
}

/// A token that the provider must be asked about: nothing is known of it, so it is not called bad.
fn not_introspected(pod: &Pod<'_>, answer: &Answer) -> Result<()> {
    assert_eq!((answer.status, answer.header("www-authenticate")), (503, None), "{answer:?}");
    let record = pod.record_of(answer)?;
    assert_eq!(
        (&record["decision"], &record["reason"]),
        (&json!("Refuse"), &json!("IntrospectionUnavailable"))
    );
    Ok(())
}

/// What provider and identity say of themselves, each condition with its message; that of the provider says who would know.
fn conditions(world: &World) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for words in [&["get", "idp", "corp"][..], &["-n", "hr", "get", "aid", "hr-tools"]] {
        let object = world.object(words)?;
        let all = object["status"]["conditions"].as_array().into_iter().flatten();
        said.extend(all.map(|one| format!("{}={} {}", one["type"], one["status"], one["message"])));
    }
    ensure!(said[0].contains("Whether it answers is seen by the sidecars that use it."), "{said:?}");
    Ok(said)
}

fn asked_always(world: &World) -> Result<Undo<'_>> {
    world.provider("introspection", &json!({"rule": "Always", "cacheTTL": "2s"}))
}

/// The Service leads nowhere, so connections to it are refused; those that stand are broken, as by a server that goes.
#[test]
fn d8_a20_a21_b6_with_the_provider_gone_what_is_known_goes_on_and_what_must_be_asked_is_a_503() -> Result<()>
{
    let world = World::get()?;
    let pod = world.pod()?;
    let _cooldown = world.provider("keys", &json!({"refreshCooldown": format!("{COOLDOWN}s")}))?;
    let tokens = Tokens::new(world)?;
    let fetches = fetches_at_rest(&pod)?;
    let (said, seen) = (conditions(world)?, payroll::seen(world)?.len());

    let leads_to = |name: &str| {
        let selector = json!({"spec": {"selector": {"app.kubernetes.io/name": name}}});
        world.patch("keycloak", "service/keycloak", &selector)
    };
    let back = Undo::new(|| leads_to("keycloak"));
    leads_to("nobody")?;
    until("the provider refuses connections", LOGGED, || Ok(keycloak::keys(world).err()))?;
    let address = world.address("keycloak.keycloak.svc.cluster.local")?;
    Process::in_container(world, "hr", &pod.name, "behalf-sidecar")?.cut_off(&address)?;

    tokens.go_on(world, &pod)?;
    let answer = mcp::salary(&tokens.cold[0].text, "bob").send(world)?;
    not_exchanged(&pod, &answer, &["ProviderUnreachable"])?;
    // A fetch of keys that fails takes none away.
    let unknown = search(&of_nobodys_key(&tokens.warm, 0)?).send(world)?;
    assert_eq!((unknown.status, pod.metric("key_fetches_total")?), (401, fetches + 1));
    tokens.go_on(world, &pod)?;
    let asked = asked_always(world)?;
    not_introspected(&pod, &search(&tokens.warm.text).send(world)?)?;
    asked.now()?;
    tokens.go_on(world, &pod)?;
    assert_eq!(payroll::seen(world)?.len(), seen + 3, "payroll saw the calls with a kept token alone");
    assert_eq!(conditions(world)?, said, "the objects are as good as they were");

    back.now()?;
    tokens.recover(world, &pod)
}

/// The provider's process is stopped: it takes connections and says nothing.
#[test]
fn d8_a20_a21_b6_a_provider_that_says_nothing_costs_its_time_and_no_more() -> Result<()> {
    let world = World::get()?;
    let pod = world.pod()?;
    let _cooldown = world.provider("keys", &json!({"refreshCooldown": format!("{COOLDOWN}s")}))?;
    let tokens = Tokens::new(world)?;
    fetches_at_rest(&pod)?;
    let said = conditions(world)?;

    let pods = world.object(&["-n", "keycloak", "get", "pods", "-l", "app.kubernetes.io/name=keycloak"])?;
    let name = pods["items"][0]["metadata"]["name"].as_str().context("the provider's pod")?;
    let frozen = Process::in_container(world, "keycloak", name, "keycloak")?.called("java")?.freeze()?;

    // What needs the provider waits for it, and meanwhile everything else goes on.
    let began = Instant::now();
    let exchanging = mcp::salary(&tokens.cold[0].text, "bob").start(world)?;
    let unknown = search(&of_nobodys_key(&tokens.warm, 0)?).start(world)?;
    tokens.go_on(world, &pod)?;
    not_exchanged(&pod, &exchanging.answer()?, &["ProviderTimeout", "ProviderUnreachable"])?;
    assert_eq!(unknown.answer()?.status, 401);
    let exchanged = began.elapsed();
    let asked = asked_always(world)?;
    let began = Instant::now();
    not_introspected(&pod, &search(&tokens.warm.text).send(world)?)?;
    let introspected = began.elapsed();
    asked.now()?;
    tokens.go_on(world, &pod)?;
    assert_eq!(conditions(world)?, said, "the objects are as good as they were");
    eprintln!(
        "a provider that says nothing: exchange and keys {exchanged:?}, introspection {introspected:?}"
    );
    assert!(exchanged < ANSWERED && introspected < ANSWERED);

    frozen.now()?;
    tokens.recover(world, &pod)
}
