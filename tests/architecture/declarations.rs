//! What a file declares, as far as rules for names ask: types, and functions named like questions.

use syn::visit::Visit;

/// How a function's name begins that asks a question.
const QUESTIONS: &[&str] = &["is_", "has_", "may_", "can_", "should_"];

/// A function that is named like a question.
pub(crate) struct Question {
    pub(crate) name: String,
    /// Whether it returns a `bool`.
    pub(crate) has_answer: bool,
}

/// A type by its definition.
pub(crate) struct TypeDefinition {
    pub(crate) name: String,
    /// Whether another file can name it.
    pub(crate) is_visible: bool,
}

/// Returns the functions of a file that are named like questions.
pub(crate) fn questions(syntax: &syn::File) -> Vec<Question> {
    let mut functions = Functions::default();
    functions.visit_file(syntax);
    functions.found
}

/// Returns the types that a file defines, in modules within it too.
pub(crate) fn type_definitions(syntax: &syn::File) -> Vec<TypeDefinition> {
    let mut found = Vec::new();
    collect_types(&syntax.items, &mut found);
    found
}

/// Collects functions that are named like questions.
#[derive(Default)]
struct Functions {
    found: Vec<Question>,
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        // The name of a test is a sentence about its subject.
        if function
            .attrs
            .iter()
            .all(|attribute| attribute.path().segments.last().is_none_or(|last| last.ident != "test"))
        {
            self.visit_signature(&function.sig);
        }
        self.visit_block(&function.block);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        let name = signature.ident.to_string();
        if QUESTIONS.iter().any(|beginning| name.starts_with(beginning)) {
            let has_answer = matches!(&signature.output, syn::ReturnType::Type(_, output) if is_answer(output));
            self.found.push(Question { name, has_answer });
        }
    }
}

/// Whether this type is `bool`, `Option<bool>` or `Poll<bool>`.
fn is_answer(output: &syn::Type) -> bool {
    let syn::Type::Path(path) = output else { return false };
    let Some(last) = path.path.segments.last() else { return false };
    match (last.ident.to_string().as_str(), &last.arguments) {
        ("bool", syn::PathArguments::None) => true,
        ("Option" | "Poll", syn::PathArguments::AngleBracketed(arguments)) => {
            arguments.args.iter().any(|one| matches!(one, syn::GenericArgument::Type(inner) if is_answer(inner)))
        }
        _ => false,
    }
}

fn collect_types(items: &[syn::Item], found: &mut Vec<TypeDefinition>) {
    for item in items {
        let (name, visibility) = match item {
            syn::Item::Struct(item) => (&item.ident, &item.vis),
            syn::Item::Enum(item) => (&item.ident, &item.vis),
            syn::Item::Trait(item) => (&item.ident, &item.vis),
            syn::Item::Type(item) => (&item.ident, &item.vis),
            syn::Item::Mod(module) => {
                if let Some((_, items)) = &module.content {
                    collect_types(items, found);
                }
                continue;
            }
            _ => continue,
        };
        let is_visible = !matches!(visibility, syn::Visibility::Inherited);
        found.push(TypeDefinition { name: name.to_string(), is_visible });
    }
}
