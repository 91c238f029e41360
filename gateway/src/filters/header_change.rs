//! Removes, sets and adds header fields.

use table::CompiledHeaderChange;

use crate::phases::fields::Fields;

/// Applies a change: removals, then replacements, then additions.
pub(crate) fn apply(change: &CompiledHeaderChange, fields: &mut impl Fields) {
    for name in &change.remove {
        fields.remove(name);
    }
    for (name, value) in &change.set {
        fields.replace(name, value.clone());
    }
    for (name, value) in &change.add {
        fields.append(name, value.clone());
    }
}
