//! Protected-resource metadata.

use serde_json::json;

use crate::support::bundle::SERVER;
use crate::support::{Call, World};

#[tokio::test]
async fn a2_a3_a4_metadata_is_served_to_anyone_at_both_paths() {
    let world = World::start().await;
    for path in ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"] {
        let answer = world.send(Call::get(path).header("origin", "https://agent.example.com")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.header("cache-control").is_some());
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(
            answer.json(),
            json!({
                "resource": SERVER,
                "authorization_servers": [world.issuer.url],
                "scopes_supported": ["hr:leave:read", "hr:read", "hr:salary:read"],
                "bearer_methods_supported": ["header"],
                "dpop_signing_alg_values_supported": behalf_policy::dpop::ALGORITHMS,
            })
        );
        let record = world.last_record().await;
        assert_eq!(record["decision"], "Permit");
        assert_eq!(record["method"], "HTTP GET");
    }
    let post = Call::body("{}").at("/.well-known/oauth-protected-resource/mcp");
    assert_eq!(world.send(post).await.status, 405);
    for path in [
        "/.well-known/oauth-protected-resource/",
        "/.well-known/oauth-protected-resource/mcp/",
        "/.well-known/openid-configuration",
    ] {
        assert_eq!(world.send(Call::get(path)).await.status, 404, "{path}");
    }
    assert!(world.server.seen().is_empty());
    world.stop().await;
}
