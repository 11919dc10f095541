use zeroize::Zeroizing;

use super::*;

const LIFE: Lifetimes = Lifetimes { authority: Duration::days(365), certificate: Duration::days(30) };

fn names() -> Vec<String> {
    vec!["behalf-webhook.behalf-system.svc".to_owned(), "198.18.0.1".to_owned()]
}

fn start() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap()
}

fn made() -> Material {
    rotate(None, Due::Authority, &names(), LIFE, start()).unwrap()
}

fn is_due(material: &Material, now: OffsetDateTime) -> Due {
    due(material, &names(), LIFE, now, false)
}

fn done(material: &Material, what: Due, now: OffsetDateTime) -> Material {
    rotate(Some(material), what, &names(), LIFE, now).unwrap()
}

#[test]
fn a_new_one_is_due_for_nothing_until_its_last_days() {
    let material = made();
    assert_eq!(is_due(&material, start()), Due::Nothing);
    assert_eq!(is_due(&material, start() + Duration::days(19)), Due::Nothing);
    assert_eq!(is_due(&material, start() + Duration::days(21)), Due::Certificate);
    let renewed = done(&material, Due::Certificate, start() + Duration::days(270));
    assert_eq!(is_due(&renewed, start() + Duration::days(270)), Due::Nothing);
    let renewed = done(&material, Due::Certificate, start() + Duration::days(275));
    assert_eq!(is_due(&renewed, start() + Duration::days(275)), Due::Stage);
    assert_eq!(is_due(&material, start() + LIFE.authority * 2), Due::Authority);
    assert_eq!(is_due(&material, start() - Duration::days(2)), Due::Authority, "not valid yet");
}

#[test]
fn other_names_foreign_keys_and_rubbish_are_due() {
    let material = made();
    let other = [names(), vec!["elsewhere.svc".to_owned()]].concat();
    assert_eq!(due(&material, &other, LIFE, start(), false), Due::Certificate);
    assert_eq!(due(&material, &names()[..1], LIFE, start(), false), Due::Nothing);
    let with = |change: fn(&mut Material, Material)| {
        let mut changed = made();
        change(&mut changed, made());
        is_due(&changed, start())
    };
    assert_eq!(with(|it, other| it.certificate_key = other.certificate_key), Due::Certificate);
    assert_eq!(with(|it, other| it.certificate = other.certificate), Due::Certificate);
    assert_eq!(with(|it, _| it.certificate.clear()), Due::Certificate);
    assert_eq!(with(|it, _| it.certificate_key = Zeroizing::new("no key".into())), Due::Certificate);
    assert_eq!(with(|it, other| it.authority_key = other.authority_key), Due::Authority);
    assert_eq!(with(|it, _| it.authorities = "no certificate".into()), Due::Authority);
    assert_eq!(with(|it, _| it.authorities.clear()), Due::Authority);
    let rubbish = Authority { certificate: "no certificate".into(), key: Zeroizing::new("no key".into()) };
    let mut staged = made();
    staged.next = Some(rubbish);
    assert_eq!(due(&staged, &names(), LIFE, start(), true), Due::Stage, "a next one that is none");
}

#[test]
fn a_new_certificate_keeps_the_authority() {
    let material = made();
    let next = done(&material, Due::Certificate, start() + Duration::days(25));
    assert_eq!(next.authorities, material.authorities);
    assert_ne!(next.certificate, material.certificate);
    assert_ne!(*next.certificate_key, *material.certificate_key);
    assert_eq!(is_due(&next, start() + Duration::days(25)), Due::Nothing);
}

/// The authority under which the certificate of `material` is served.
fn issuer(material: &Material) -> Vec<u8> {
    let certificate = pems(&material.certificate).remove(0);
    let issuer = certificate.parse_x509().unwrap().issuer().as_raw().to_vec();
    let held = pems(&material.authorities);
    let of = |pem: &&Pem| pem.parse_x509().unwrap().subject().as_raw() == issuer;
    held.iter().find(of).unwrap().contents.clone()
}

#[test]
fn a_certificate_is_only_served_under_an_authority_that_was_trusted_before() {
    let (mut material, mut now) = (made(), start());
    let mut was_trusted = pems(&material.authorities);
    for _ in 0..4 {
        now += Duration::days(280);
        material = done(&material, Due::Certificate, now);
        assert_eq!(is_due(&material, now), Due::Stage);
        let old = pems(&material.authorities).remove(0);
        let staged = done(&material, Due::Stage, now);
        assert_eq!(staged.certificate, material.certificate, "the old one signs on");
        assert_eq!((pems(&staged.authorities).len(), is_due(&staged, now)), (2, Due::Nothing));
        was_trusted.extend(pems(&staged.authorities));
        assert_eq!(due(&staged, &names(), LIFE, now, true), Due::Promote);
        let promoted = done(&staged, Due::Promote, now);
        assert!(was_trusted.iter().any(|it| it.contents == issuer(&promoted)));
        assert_ne!(issuer(&promoted), old.contents);
        assert!(holds(&promoted.authorities, &encode(&old)), "a late replica still serves the old one");
        assert_eq!(is_due(&promoted, now), Due::Nothing);
        now += Duration::days(29);
        let renewed = done(&promoted, Due::Certificate, now);
        assert_eq!(is_due(&renewed, now), Due::Nothing);
        now += Duration::days(1);
        assert_eq!(is_due(&renewed, now), Due::Forget, "its last certificate has expired");
        material = done(&renewed, Due::Forget, now);
        assert_eq!((pems(&material.authorities).len(), is_due(&material, now)), (1, Due::Nothing));
        assert!(!holds(&material.authorities, &encode(&old)));
    }
}

#[test]
fn whoever_slept_through_it_starts_with_what_is_trusted_already_or_anew() {
    let staged = done(&made(), Due::Stage, start() + Duration::days(280));
    let late = start() + Duration::days(400);
    assert_eq!(is_due(&staged, late), Due::Promote, "the one that signs is gone, the next is trusted");
    let promoted = done(&staged, Due::Promote, late);
    assert_eq!((pems(&promoted.authorities).len(), is_due(&promoted, late)), (1, Due::Forget));
    assert_eq!(is_due(&done(&promoted, Due::Forget, late), late), Due::Nothing);
    let later = start() + LIFE.authority * 4;
    assert_eq!(is_due(&staged, later), Due::Authority);
    let fresh = done(&staged, Due::Authority, later);
    assert_eq!((pems(&fresh.authorities).len(), is_due(&fresh, later)), (1, Due::Nothing));
}

#[test]
fn a_certificate_ends_with_its_authority_and_is_not_renewed_over_and_over() {
    let now = start() + Duration::days(360);
    let material = done(&made(), Due::Certificate, now);
    assert_eq!(end_of_first(&material.certificate), end_of_first(&material.authorities));
    assert_eq!(is_due(&material, now), Due::Stage);
    let staged = done(&material, Due::Stage, now);
    assert_eq!(is_due(&staged, now + Duration::days(4)), Due::Nothing);
}

#[test]
fn a_secret_of_the_first_release_is_read_and_loses_its_old_authority_with_the_next() {
    let (mut material, other) = (made(), made());
    material.authorities = format!("{}{}", material.authorities, other.authorities);
    assert_eq!(is_due(&material, start()), Due::Nothing);
    let staged = done(&material, Due::Stage, start());
    assert!(!holds(&staged.authorities, &other.authorities));
}

#[test]
fn the_wait_before_an_authority_signs_has_bounds() {
    let settle = |authority| Lifetimes { authority, ..LIFE }.settle();
    assert_eq!(settle(Duration::days(365)), Duration::minutes(10));
    assert_eq!(settle(Duration::seconds(90)), Duration::milliseconds(4500));
    assert_eq!(settle(Duration::seconds(1)), Duration::seconds(2));
}

#[test]
fn the_secret_gives_back_what_was_put_in() {
    for material in [made(), done(&made(), Due::Stage, start())] {
        let again = Material::from_data(&material.to_data()).unwrap();
        assert_eq!(again.to_data(), material.to_data());
        for key in material.to_data().keys().filter(|key| !key.starts_with("next")) {
            let mut data = material.to_data();
            data.remove(key);
            assert!(Material::from_data(&data).is_err(), "{key}");
        }
    }
    let promoted = done(&done(&made(), Due::Stage, start()), Due::Promote, start());
    assert_eq!(Material::from_data(&promoted.to_data()).unwrap().previous_until, promoted.previous_until);
    assert!(promoted.previous_until.is_some());
}

#[test]
fn no_output_shows_a_private_key() {
    assert!(!format!("{:?}", done(&made(), Due::Stage, start())).contains("PRIVATE"));
}
