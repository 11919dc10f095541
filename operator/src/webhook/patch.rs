//! The JSON patch (RFC 6902) from one pod to another.
//!
//! Not a general difference: a container put in front of others is one `add`, never a rewriting of all that follow. Those
//! may hold fields that this build does not know, which must stay with the container they belong to.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation};
use serde_json::Value;

/// The patch that makes `new` of `old`.
#[must_use]
pub fn difference(old: &Value, new: &Value) -> Patch {
    let mut operations = Vec::new();
    compare(&PointerBuf::new(), old, new, &mut operations);
    Patch(operations)
}

fn compare(path: &PointerBuf, old: &Value, new: &Value, operations: &mut Vec<PatchOperation>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                let path = path.with_trailing_token(key.as_str());
                operations.push(PatchOperation::Remove(RemoveOperation { path }));
            }
            for (key, value) in new {
                let path = path.with_trailing_token(key.as_str());
                match old.get(key) {
                    Some(held) => compare(&path, held, value, operations),
                    None => add(path, value, operations),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => match places(old, new) {
            Some(places) => {
                for (index, (value, place)) in new.iter().zip(places).enumerate() {
                    let path = path.with_trailing_token(index);
                    match place.and_then(|place| old.get(place)) {
                        Some(held) => compare(&path, held, value, operations),
                        None => add(path, value, operations),
                    }
                }
            }
            None => replace(path, &Value::Array(new.clone()), operations),
        },
        (_, new) => replace(path, new, operations),
    }
}

fn add(path: PointerBuf, value: &Value, operations: &mut Vec<PatchOperation>) {
    operations.push(PatchOperation::Add(AddOperation { path, value: value.clone() }));
}

fn replace(path: &PointerBuf, value: &Value, operations: &mut Vec<PatchOperation>) {
    let operation = ReplaceOperation { path: path.clone(), value: value.clone() };
    operations.push(PatchOperation::Replace(operation));
}

/// Where each element of `new` stands in `old`, if `new` is `old` with some put in between. Elements with a name are
/// known by it, others by their whole value; lists in which that is ambiguous or in which something is gone: none.
fn places(old: &[Value], new: &[Value]) -> Option<Vec<Option<usize>>> {
    let key = |value: &Value| value.get("name").cloned().unwrap_or_else(|| value.clone());
    let (held, wanted): (Vec<_>, Vec<_>) = (old.iter().map(key).collect(), new.iter().map(key).collect());
    let unique = |keys: &[Value]| {
        keys.iter().enumerate().all(|(at, key)| !keys.iter().skip(at + 1).any(|it| it == key))
    };
    if !unique(&held) || !unique(&wanted) {
        return same_length(old, new);
    }
    let mut next = 0;
    let mut places = Vec::with_capacity(new.len());
    for key in &wanted {
        let here = held.get(next) == Some(key);
        places.push(here.then_some(next));
        next += usize::from(here);
    }
    if next == held.len() { Some(places) } else { same_length(old, new) }
}

/// Element by element, when there are as many.
fn same_length(old: &[Value], new: &[Value]) -> Option<Vec<Option<usize>>> {
    (old.len() == new.len()).then(|| (0..old.len()).map(Some).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The patch, and that it does what it should.
    fn patch(old: &Value, new: &Value) -> Value {
        let patch = difference(old, new);
        let mut result = old.clone();
        json_patch::patch(&mut result, &patch).unwrap();
        assert_eq!(&result, new);
        serde_json::to_value(patch).unwrap()
    }

    #[test]
    fn a_container_in_front_is_added_and_the_others_are_not_touched() {
        let old = json!({"spec": {"initContainers": [{"name": "a", "image": "a"}, {"name": "b"}]}});
        let new = json!({"spec": {"initContainers": [{"name": "x"}, {"name": "a", "image": "a", "env": []}, {"name": "y"}, {"name": "b"}]}});
        assert_eq!(
            patch(&old, &new),
            json!([
                {"op": "add", "path": "/spec/initContainers/0", "value": {"name": "x"}},
                {"op": "add", "path": "/spec/initContainers/1/env", "value": []},
                {"op": "add", "path": "/spec/initContainers/2", "value": {"name": "y"}},
            ])
        );
    }

    #[test]
    fn fields_this_build_does_not_know_stay_with_their_container() {
        let known = json!({"c": [{"name": "a"}, {"name": "b", "port": 1}]});
        let wanted = json!({"c": [{"name": "x"}, {"name": "a"}, {"name": "b", "port": 2}]});
        let mut real = json!({"c": [{"name": "a", "future": 1}, {"name": "b", "port": 1, "future": 2}]});
        json_patch::patch(&mut real, &difference(&known, &wanted)).unwrap();
        assert_eq!(
            real,
            json!({"c": [{"name": "x"}, {"name": "a", "future": 1}, {"name": "b", "port": 2, "future": 2}]})
        );
    }

    #[test]
    fn whatever_the_two_are_the_patch_makes_one_of_the_other() {
        let values = [
            json!({}),
            json!({"a": 1}),
            json!({"a": null, "b~/c": [1, 2, 3]}),
            json!({"b~/c": [0, 1, 2, 3, 4]}),
            json!({"b~/c": [3, 2, 1]}),
            json!({"b~/c": [1, 1]}),
            json!({"b~/c": []}),
            json!({"m": [{"name": "a", "p": "/x"}, {"name": "a", "p": "/y"}]}),
            json!({"m": [{"name": "a", "p": "/x"}, {"name": "a", "p": "/y"}, {"name": "b"}]}),
            json!({"m": [{"name": "b"}, {"name": "a", "p": {"q": [1]}}]}),
            json!({"m": [{"name": "c"}, {"p": 1}, "s"]}),
        ];
        for old in &values {
            for new in &values {
                patch(old, new);
            }
        }
    }

    #[test]
    fn nothing_changed_is_no_patch() {
        let pod = json!({"spec": {"containers": [{"name": "a"}]}});
        assert_eq!(patch(&pod, &pod), json!([]));
    }
}
