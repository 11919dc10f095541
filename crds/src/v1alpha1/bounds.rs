//! The schema of every bounded string, list and number, in one place, so that no field can be left unbounded by accident.
//!
//! Used through `#[schemars(schema_with = "…")]`. The API server enforces these; they also keep the estimated cost of the
//! rules (CEL) inside its budget.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// A kind of text: its length in characters and its form.
pub(in crate::v1alpha1) trait Text {
    /// Longest text.
    const MAX: u32;
    /// Shortest text.
    const MIN: u32 = 1;
    /// Regular expression (RE2) that the whole text matches.
    const PATTERN: &'static str;
}

/// Declares kinds of text.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: max $max:literal, $pattern:literal;)*) => {$(
        $(#[$doc])*
        pub(in crate::v1alpha1) struct $name;
        impl Text for $name {
            const MAX: u32 = $max;
            const PATTERN: &'static str = $pattern;
        }
    )*};
}

texts! {
    /// An OAuth scope: RFC 6749 §3.3 scope-token.
    Scope: max 128, r"^[!#-\[\]-~]+$";
    /// A group as the provider's token carries it: no control characters.
    Group: max 256, r"^[^\x00-\x1f\x7f]+$";
    /// The name of an entry in a list, of a container or a referenced object: RFC 1123 label.
    Label: max 63, r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
    /// The name of an object: RFC 1123 subdomain.
    Subdomain: max 253, r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    /// The name of an `IdentityProvider`, short enough to be part of a volume name.
    ProviderName: max 52, r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
    /// The name of an MCP tool: printable ASCII without space.
    Tool: max 128, r"^[!-~]+$";
    /// The name of an MCP prompt: no control characters.
    Prompt: max 256, r"^[^\x00-\x1f\x7f]+$";
    /// The origin of web pages, as browsers write it: RFC 6454 §6.2.
    Origin: max 256, r"^https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?$";
    /// An audience or a client id: printable ASCII without space.
    Identifier: max 512, r"^[!-~]+$";
    /// A URL of any sort; what exactly is asked of it stands in a rule, which can say why it refuses.
    Url: max 512, r"^[!-~]+$";
    /// Certificates in PEM.
    Pem: max 65536, r"^[\t\n\r -~]+$";
    /// A JSON pointer to a member, RFC 6901.
    Pointer: max 256, r"^(/([^~/]|~[01])*)+$";
    /// A SPIFFE trust domain.
    TrustDomain: max 200, r"^[a-z0-9._-]+$";
    /// The name of a CSI driver.
    CsiDriver: max 63, r"^[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?$";
    /// A condition on arguments, in CEL.
    Expression: max 1024, r"^[^\x00-\x08\x0b-\x1f\x7f]+$";
    /// A class of authentication (acr): printable ASCII without space, comma or quote.
    Acr: max 128, r"^[!#-+\--\[\]-~]+$";
    /// The name of an attribute of callers.
    AttributeName: max 63, r"^[a-z][a-z0-9_]*$";
    /// The name of an environment variable.
    EnvName: max 128, r"^[A-Z_][A-Z0-9_]*$";
    /// A digest of a bundle.
    Digest: max 71, r"^sha256:[0-9a-f]{2,64}$";
    /// A revision of what is injected.
    Revision: max 64, r"^[0-9a-zA-Z._-]+$";
    /// A reason: metav1.Condition's form.
    Reason: max 1024, r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$";
}

fn text_value<T: Text>() -> Value {
    json!({ "type": "string", "minLength": T::MIN, "maxLength": T::MAX, "pattern": T::PATTERN })
}

fn schema(value: Value) -> Schema {
    // An object is always a schema; the empty schema is what the bounds test would name.
    Schema::try_from(value).unwrap_or_default()
}

/// One text.
pub(in crate::v1alpha1) fn text<T: Text>(_: &mut SchemaGenerator) -> Schema {
    schema(text_value::<T>())
}

/// A list of texts without duplicates.
pub(in crate::v1alpha1) fn texts<T: Text, const MIN: u32, const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    list(&text_value::<T>(), MIN, MAX, &json!({ "x-kubernetes-list-type": "set" }))
}

/// A list of enumeration values without duplicates.
pub(in crate::v1alpha1) fn choices<T: JsonSchema, const MIN: u32, const MAX: u32>(
    generator: &mut SchemaGenerator,
) -> Schema {
    let item = generator.subschema_for::<T>().to_value();
    list(&item, MIN, MAX, &json!({ "x-kubernetes-list-type": "set" }))
}

/// A list of objects, one per `name`.
pub(in crate::v1alpha1) fn named<T: JsonSchema, const MIN: u32, const MAX: u32>(
    generator: &mut SchemaGenerator,
) -> Schema {
    let item = generator.subschema_for::<T>().to_value();
    list(&item, MIN, MAX, &json!({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"] }))
}

/// A list that is written as a whole.
pub(in crate::v1alpha1) fn entries<T: JsonSchema, const MAX: u32>(generator: &mut SchemaGenerator) -> Schema {
    let item = generator.subschema_for::<T>().to_value();
    list(&item, 0, MAX, &json!({ "x-kubernetes-list-type": "atomic" }))
}

/// A list of ports, one per number and protocol.
pub(in crate::v1alpha1) fn ports<T: JsonSchema, const MAX: u32>(generator: &mut SchemaGenerator) -> Schema {
    let item = generator.subschema_for::<T>().to_value();
    list(
        &item,
        0,
        MAX,
        &json!({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"] }),
    )
}

fn list(items: &Value, min: u32, max: u32, kind: &Value) -> Schema {
    let mut value = json!({ "type": "array", "items": items, "maxItems": max });
    if let (Value::Object(value), Value::Object(kind)) = (&mut value, kind) {
        if min > 0 {
            value.insert("minItems".into(), min.into());
        }
        value.extend(kind.clone());
    }
    schema(value)
}

/// What a CSI driver is told, by name.
pub(in crate::v1alpha1) fn attributes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 16,
        "additionalProperties": { "type": "string", "maxLength": 256 },
    })
}

/// A whole number within bounds.
pub(in crate::v1alpha1) fn whole<const MIN: i64, const MAX: i64>(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": MIN, "maximum": MAX })
}

/// A TCP, UDP or SCTP port.
pub(in crate::v1alpha1) fn port(generator: &mut SchemaGenerator) -> Schema {
    whole::<1, 65_535>(generator)
}

/// A generation, a serial or a count of milliseconds: what a JSON number carries exactly.
pub(in crate::v1alpha1) fn counter(generator: &mut SchemaGenerator) -> Schema {
    whole::<0, 9_007_199_254_740_991>(generator)
}

/// A count of things in a cluster.
pub(in crate::v1alpha1) fn count(generator: &mut SchemaGenerator) -> Schema {
    whole::<0, 1_000_000>(generator)
}

/// A point in time, RFC 3339.
pub(in crate::v1alpha1) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time", "maxLength": 40 })
}

/// `metav1.Condition` as a list by `type`, with the bounds Kubernetes itself sets on it.
pub(in crate::v1alpha1) fn conditions(_: &mut SchemaGenerator) -> Schema {
    let item = json!({
        "type": "object",
        "description": "One aspect of the object's state.",
        "required": ["type", "status", "lastTransitionTime", "reason", "message"],
        "properties": {
            "type": { "type": "string", "minLength": 1, "maxLength": 316, "pattern": "^[A-Za-z][A-Za-z0-9.-]*(/[A-Za-z0-9._-]+)?$", "description": "What the condition is about." },
            "status": { "type": "string", "enum": ["True", "False", "Unknown"], "description": "True, False or Unknown." },
            "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0, "maximum": 9_007_199_254_740_991_i64, "description": "The metadata.generation this was computed from." },
            "lastTransitionTime": { "type": "string", "format": "date-time", "maxLength": 40, "description": "When status last changed." },
            "reason": { "type": "string", "minLength": 1, "maxLength": Reason::MAX, "pattern": Reason::PATTERN, "description": "Why, as one word of a closed set." },
            "message": { "type": "string", "maxLength": 32_768, "description": "Cause and next step, for a person." },
        },
    });
    list(&item, 0, 16, &json!({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"] }))
}

/// `metav1.LabelSelector`, bounded, that selects by at least one requirement.
pub(in crate::v1alpha1) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    let key =
        json!({ "type": "string", "minLength": 1, "maxLength": 317, "description": "The label's key." });
    let value = json!({ "type": "string", "maxLength": 63 });
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": { "type": "object", "maxProperties": 16, "additionalProperties": value, "description": "Labels that must have exactly these values." },
            "matchExpressions": {
                "type": "array", "maxItems": 16, "x-kubernetes-list-type": "atomic",
                "description": "Requirements on labels; all must hold.",
                "items": {
                    "type": "object",
                    "description": "One requirement on a label.",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": key,
                        "operator": { "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"], "description": "How the label's value relates to values." },
                        "values": { "type": "array", "maxItems": 32, "x-kubernetes-list-type": "atomic", "items": value, "description": "Values for In and NotIn; empty for Exists and DoesNotExist." },
                    },
                },
            },
        },
        "x-kubernetes-validations": [{
            "rule": "(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
            "message": "an empty selector would select every namespace; say from: All if that is meant",
            "reason": "FieldValueRequired",
        }, {
            "rule": "!has(self.matchExpressions) || self.matchExpressions.all(e, (e.operator in ['In', 'NotIn']) == (has(e.values) && size(e.values) > 0))",
            "message": "In and NotIn need values; Exists and DoesNotExist take none",
            "fieldPath": ".matchExpressions",
            "reason": "FieldValueInvalid",
        }],
    })
}
