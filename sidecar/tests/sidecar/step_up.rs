//! What calls need besides their scopes: arguments that decide, and logins that are recent or strong enough.

use serde_json::{Value, json};

use crate::support::bundle::SERVER;
use crate::support::issuer::now;
use crate::support::{Alg, Call, World};

fn row<'a>(serve: &'a mut Value, list: &str, name: &str) -> &'a mut Value {
    let rows = if list == "tools" { &mut serve["servers"][0]["tools"] } else { &mut serve[list] };
    rows.as_array_mut().unwrap().iter_mut().find(|row| row["name"] == name).unwrap()
}

/// `directory.search` beyond one's own team needs `hr:leave:read` besides; nobody searches for everything.
async fn conditioned() -> World {
    World::with(|serve| {
        let provider = &mut serve["providers"][0];
        provider["tokens"] = json!({"attributes": {"team": "/team"}});
        row(serve, "tools", "directory.search")["conditions"] = json!([
            {"name": "beyond", "when": "arguments.team != caller.attributes.team", "scopes": ["hr:leave:read"]},
            {"name": "all", "when": "arguments.team == '*'"},
        ]);
    })
    .await
}

fn token(world: &World, scope: &str, further: &Value) -> String {
    let mut claims = world.issuer.claims(SERVER);
    claims["scope"] = json!(scope);
    for (name, value) in further.as_object().unwrap() {
        claims[name] = value.clone();
    }
    world.issuer.sign(Alg::Es256, &claims)
}

fn search(arguments: &Value) -> Call {
    Call::message(&json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": {"name": "directory.search", "arguments": arguments}}))
}

#[tokio::test]
async fn arguments_decide_what_a_call_needs() {
    let world = conditioned().await;
    let own = token(&world, "hr:read", &json!({"team": "blue"}));
    let more = token(&world, "hr:read hr:leave:read", &json!({"team": "blue"}));
    let permitted = [(&own, json!({"team": "blue"})), (&more, json!({"team": "red"}))];
    for (token, arguments) in permitted {
        let answer = world.send(search(&arguments).token(token)).await;
        assert_eq!(answer.status, 200, "{arguments} {answer:?}");
    }
    let before = world.server.seen().len();
    let nobody = token(&world, "hr:read hr:leave:read", &json!({}));
    let refused = [
        (&own, json!({"team": "red"}), "InsufficientScope"),
        (&more, json!({"team": "*"}), "ArgumentsNotAllowed"),
        (&own, json!({}), "ArgumentsNotJudged"),
        (&own, json!({"team": ["blue"]}), "ArgumentsNotJudged"),
        (&own, json!({"team": "blue", "Team": "red"}), "ArgumentsNotJudged"),
        (&own, json!({"team": "blue", "n": 9_007_199_254_740_993_u64}), "ArgumentsNotJudged"),
        // A token without the claim has no attribute to compare with.
        (&nobody, json!({"team": "blue"}), "ArgumentsNotJudged"),
    ];
    for (token, arguments, reason) in refused {
        let answer = world.send(search(&arguments).token(token)).await;
        assert_eq!((answer.status, answer.reason().as_str()), (403, reason), "{arguments}");
        let challenge = answer.challenge().map(str::to_owned);
        if reason == "InsufficientScope" {
            assert!(challenge.unwrap().contains("scope=\"hr:leave:read hr:read\""), "a16: all of this call");
            assert_eq!(world.last_record().await["scopesRequired"], json!(["hr:leave:read", "hr:read"]));
        } else {
            assert_eq!(challenge, None, "d32: nothing to step up to");
        }
        assert_eq!(world.last_record().await["reason"], reason);
    }
    assert_eq!(world.server.seen().len(), before, "nothing of it reached the server");
    let wrong = token(&world, "hr:read", &json!({"team": ["blue"]}));
    let answer = world.send(search(&json!({"team": "blue"})).token(&wrong)).await;
    assert_eq!(answer.status, 401, "a claim of the wrong type is no token, never absent");
    world.stop().await;
}

#[tokio::test]
async fn a17_a_login_too_old_or_too_weak_gets_the_challenge_of_rfc_9470() {
    let world = World::with(|serve| {
        row(serve, "scopes", "hr:salary:read")["assurance"] =
            json!({"maxAge": 900, "acrValues": ["gold", "silver"]});
    })
    .await;
    let scope = "hr:read hr:salary:read";
    let good = token(&world, scope, &json!({"auth_time": now() - 60, "acr": "silver"}));
    assert_eq!(world.send(Call::tool("salary.get").token(&good)).await.status, 200);
    let before = world.server.seen().len();
    let insufficient = [
        json!({"auth_time": now() - 901, "acr": "gold"}),
        json!({"auth_time": now() - 60, "acr": "bronze"}),
        json!({"auth_time": now() - 60}),
        json!({"acr": "gold"}),
        json!({}),
    ];
    for login in insufficient {
        let weak = token(&world, scope, &login);
        let mut seen = Vec::new();
        for _ in 0..2 {
            let answer = world.send(Call::tool("salary.get").token(&weak)).await;
            assert_eq!(
                (answer.status, answer.reason().as_str()),
                (401, "AuthenticationInsufficient"),
                "{login}"
            );
            seen.push(answer.challenge().unwrap().to_owned());
            assert_eq!(world.last_record().await["reason"], "AuthenticationInsufficient");
        }
        assert!(seen[0].contains("error=\"insufficient_user_authentication\""), "{seen:?}");
        assert!(
            seen[0].contains("acr_values=\"gold silver\"") && seen[0].contains("max_age=\"900\""),
            "{seen:?}"
        );
        assert!(seen[0].contains("resource_metadata="), "{seen:?}");
        assert_eq!(seen[0], seen[1], "d32: the same request gets the same challenge");
        // What uses no such scope asks nothing of the login.
        assert_eq!(world.send(Call::tool("directory.search").token(&weak)).await.status, 200);
    }
    for wrong in [json!({"auth_time": "1700000000"}), json!({"acr": 1}), json!({"auth_time": -1})] {
        let token = token(&world, scope, &wrong);
        assert_eq!(
            world.send(Call::tool("salary.get").token(&token)).await.reason(),
            "InvalidToken",
            "{wrong}"
        );
    }
    let searched = world.server.seen().len() - before;
    assert_eq!(searched, 5, "only the searches reached the server");
    world.stop().await;
}
