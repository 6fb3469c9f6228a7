//! What can be told of a template without rendering it: its names, its syntax errors, the
//! files it includes; and the small rewriting that makes minijinja chain like Ansible.
//!
//! Ansible lets `a.b.c | default(x)` and `a.b.c is defined` pass when already `a` or `a.b`
//! is missing, and fails everywhere else. minijinja's strict mode is right everywhere
//! else, so such chains (and `'…' % value`, which minijinja lacks) are turned into
//! function calls before compiling; an [`OffsetMap`] leads back to what was typed.

use std::collections::BTreeSet;
use std::ops::Range;

use minijinja::machinery::{self, ast};
use minijinja::syntax::SyntaxConfig;

/// The function a guarded chain becomes.
pub(super) const CHAIN: &str = "__chain";
/// The function `'…' % value` becomes.
pub(super) const PERCENT: &str = "__percent";

/// Collections whose filters and tests are here.
const COLLECTIONS: &[&str] = &[
    "ansible.builtin.",
    "ansible.legacy.",
    "ansible.netcommon.",
    "ansible.posix.",
    "ansible.utils.",
    "community.general.",
];

/// How a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A playbook's text with `{{ }}`, `{% %}` and `{# #}` in it: a backslash inside `{{ }}`
    /// is a backslash, as Ansible has it.
    Template,
    /// A template file: escapes in its strings are Python's.
    File,
    /// What stands inside `{{ }}`: `when`, `until`, `that`, …
    Expression,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxProblem {
    pub message: String,
    pub range: Range<usize>,
}

/// A name that is looked up, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub name: String,
    pub range: Range<usize>,
    /// Evaluated whatever the values are: not in a branch, not right of `and`/`or`.
    pub always: bool,
}

/// A variable and the parts asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub start: usize,
    /// The variable's own end first.
    pub ends: Vec<usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Analysis {
    /// Variables the template does not set itself, each place of use.
    pub variables: Vec<Named>,
    /// Variables asked for with `is defined`, `default`, …: they may be missing.
    pub guarded: BTreeSet<String>,
    pub filters: Vec<Named>,
    pub tests: Vec<Named>,
    /// Functions called by name; they are in `variables` too.
    pub calls: BTreeSet<String>,
    /// Templates named literally by `include`, `import`, `extends`.
    pub includes: Vec<Named>,
    /// Chains such as `a.b[c]` that must not be missing, and where each link ends.
    pub chains: Vec<Chain>,
    /// The whole template is one `{{ expression }}`: its value keeps its type.
    pub single: Option<Range<usize>>,
    edits: Vec<Edit>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Edit {
    at: Range<usize>,
    with: String,
}

/// Whether a text needs rendering at all.
pub(super) fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// Reads a template or an expression.
pub(super) fn analyse(text: &str, form: Form) -> Result<Analysis, SyntaxProblem> {
    let mut walker = Walker {
        text,
        found: Analysis::default(),
        scopes: vec![BTreeSet::new()],
        always: true,
        form,
        in_braces: false,
    };
    match form {
        Form::Expression => {
            let expression =
                machinery::parse_expr(text).map_err(|error| syntax_problem(text, &error))?;
            walker.expr(&expression);
        }
        Form::Template | Form::File => {
            let tree = machinery::parse(text, "<template>", SyntaxConfig::default())
                .map_err(|error| syntax_problem(text, &error))?;
            if let ast::Stmt::Template(template) = &tree {
                walker.found.single = single(text, &template.children);
                walker.body(&template.children);
            }
        }
    }
    walker
        .found
        .edits
        .sort_by_key(|edit| (edit.at.start, edit.at.end));
    Ok(walker.found)
}

/// Returns the range of the expression when the template is nothing but `{{ it }}`
/// (comments and one line break at the end do not count).
fn single(text: &str, children: &[ast::Stmt<'_>]) -> Option<Range<usize>> {
    let [ast::Stmt::EmitExpr(emit)] = children else {
        return None;
    };
    let range = range_of(emit.span());
    text.get(range.clone()).map(|_| range)
}

pub(super) fn syntax_problem(text: &str, error: &minijinja::Error) -> SyntaxProblem {
    let range = error.range().unwrap_or(0..text.len());
    let message = error.detail().map_or_else(
        || error.kind().to_string(),
        |detail| detail.replace("unexpected end of input", "it ends too early"),
    );
    SyntaxProblem {
        message,
        range: range.start.min(text.len())..range.end.min(text.len()),
    }
}

impl Analysis {
    /// Returns the text to compile, and the way back from its offsets.
    pub(super) fn loosened(&self, text: &str, within: Range<usize>) -> (String, OffsetMap) {
        let mut out = String::with_capacity(within.len() + 16 * self.edits.len());
        let mut map = OffsetMap::default();
        let mut at = within.start;
        let inside = |edit: &&Edit| within.start <= edit.at.start && edit.at.end <= within.end;
        for edit in self.edits.iter().filter(inside) {
            map.0.push((out.len(), at));
            out.push_str(&text[at..edit.at.start.max(at)]);
            map.0.push((out.len(), edit.at.start));
            out.push_str(&edit.with);
            at = edit.at.end.max(at);
        }
        map.0.push((out.len(), at));
        out.push_str(&text[at..within.end]);
        (out, map)
    }
}

/// Pairs of (offset in the compiled text, offset in the typed text), rising.
#[derive(Clone, Debug, Default)]
pub(super) struct OffsetMap(Vec<(usize, usize)>);

impl OffsetMap {
    pub(super) fn back(&self, range: Range<usize>) -> Range<usize> {
        let start = self.offset(range.start, 0);
        let end = self.offset(range.end, 1);
        start..end.max(start)
    }

    fn offset(&self, offset: usize, open_end: usize) -> usize {
        let after = self.0.partition_point(|(new, _)| *new + open_end <= offset);
        let Some((new, old)) = after.checked_sub(1).and_then(|index| self.0.get(index)) else {
            return self.0.first().map_or(offset, |(_, old)| *old);
        };
        let moved = old + (offset - new);
        match self.0.get(after) {
            Some((_, next)) => moved.min((*next).max(*old)),
            None => moved,
        }
    }
}

fn range_of(span: machinery::Span) -> Range<usize> {
    span.start_offset as usize..span.end_offset as usize
}

/// Filters and tests that take a missing value.
fn guards(name: &str) -> bool {
    matches!(
        name.rsplit('.').next(),
        Some("default" | "d" | "defined" | "undefined" | "mandatory" | "type_debug")
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needed {
    Yes,
    No,
}

struct Walker<'text> {
    text: &'text str,
    found: Analysis,
    /// Names the template sets itself, innermost last.
    scopes: Vec<BTreeSet<String>>,
    always: bool,
    form: Form,
    /// Inside `{{ }}`.
    in_braces: bool,
}

impl Walker<'_> {
    fn body(&mut self, statements: &[ast::Stmt<'_>]) {
        for statement in statements {
            self.statement(statement);
        }
    }

    fn scoped(&mut self, walk: impl FnOnce(&mut Self)) {
        self.scopes.push(BTreeSet::new());
        walk(self);
        self.scopes.pop();
    }

    /// Walks what is reached only sometimes.
    fn sometimes(&mut self, walk: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.always, false);
        walk(self);
        self.always = before;
    }

    fn set(&mut self, name: &str) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned());
        }
    }

    fn target(&mut self, target: &ast::Expr<'_>) {
        match target {
            ast::Expr::Var(var) => self.set(var.id),
            ast::Expr::List(list) => list.items.iter().for_each(|item| self.target(item)),
            ast::Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.target(item)),
            other => self.expr(other),
        }
    }

    fn statement(&mut self, statement: &ast::Stmt<'_>) {
        match statement {
            ast::Stmt::Template(template) => self.body(&template.children),
            ast::Stmt::EmitExpr(emit) => self.emit(&emit.expr),
            ast::Stmt::EmitRaw(_) | ast::Stmt::Continue(_) | ast::Stmt::Break(_) => {}
            ast::Stmt::ForLoop(for_loop) => self.for_loop(for_loop),
            ast::Stmt::IfCond(condition) => {
                self.expr(&condition.expr);
                self.sometimes(|walker| {
                    walker.body(&condition.true_body);
                    walker.body(&condition.false_body);
                });
            }
            ast::Stmt::WithBlock(with) => self.scoped(|walker| {
                for (target, value) in &with.assignments {
                    walker.expr(value);
                    walker.target(target);
                }
                walker.body(&with.body);
            }),
            ast::Stmt::Set(set) => {
                self.expr(&set.expr);
                self.target(&set.target);
            }
            ast::Stmt::SetBlock(set) => {
                self.body(&set.body);
                self.target(&set.target);
            }
            ast::Stmt::AutoEscape(escape) => self.body(&escape.body),
            ast::Stmt::FilterBlock(filter) => {
                self.expr(&filter.filter);
                self.body(&filter.body);
            }
            ast::Stmt::Block(block) => self.scoped(|walker| walker.body(&block.body)),
            ast::Stmt::Import(import) => {
                self.include(&import.expr);
                self.target(&import.name);
            }
            ast::Stmt::FromImport(import) => {
                self.include(&import.expr);
                for (name, alias) in &import.names {
                    self.target(alias.as_ref().unwrap_or(name));
                }
            }
            ast::Stmt::Extends(extends) => self.include(&extends.name),
            ast::Stmt::Include(include) if include.ignore_missing => {
                self.sometimes(|walker| walker.expr(&include.name));
            }
            ast::Stmt::Include(include) => self.include(&include.name),
            ast::Stmt::Macro(declared) => self.declare(declared),
            ast::Stmt::CallBlock(call) => {
                self.call(&call.call);
                self.scoped(|walker| walker.macro_body(&call.macro_decl));
            }
            ast::Stmt::Do(statement) => self.call(&statement.call),
        }
    }

    /// `{{ expression }}`; in the middle of a text `{{ a if b }}` may be nothing.
    fn emit(&mut self, expr: &ast::Expr<'_>) {
        self.in_braces = true;
        self.expr(expr);
        self.in_braces = false;
        if let (ast::Expr::IfExpr(choice), None) = (expr, &self.found.single)
            && choice.false_expr.is_none()
        {
            let end = range_of(choice.span()).end;
            self.edit(end..end, " else ''".to_owned());
        }
    }

    fn for_loop(&mut self, for_loop: &ast::ForLoop<'_>) {
        self.expr(&for_loop.iter);
        self.sometimes(|walker| {
            walker.scoped(|walker| {
                walker.set("loop");
                walker.target(&for_loop.target);
                if let Some(filter) = &for_loop.filter_expr {
                    walker.expr(filter);
                }
                walker.body(&for_loop.body);
            });
            walker.body(&for_loop.else_body);
        });
    }

    fn declare(&mut self, declared: &ast::Macro<'_>) {
        self.set(declared.name);
        self.sometimes(|walker| walker.scoped(|walker| walker.macro_body(declared)));
    }

    fn macro_body(&mut self, declared: &ast::Macro<'_>) {
        for name in ["caller", "varargs", "kwargs"] {
            self.set(name);
        }
        for default in &declared.defaults {
            self.expr(default);
        }
        for argument in &declared.args {
            self.target(argument);
        }
        self.body(&declared.body);
    }

    fn include(&mut self, name: &ast::Expr<'_>) {
        match name.as_const().as_ref().and_then(|value| value.as_str()) {
            Some(file) => self.found.includes.push(Named {
                name: file.to_owned(),
                range: range_of(name.span()),
                always: self.always,
            }),
            None => self.expr(name),
        }
    }

    fn expr(&mut self, expr: &ast::Expr<'_>) {
        match expr {
            ast::Expr::Var(_) | ast::Expr::GetAttr(_) | ast::Expr::GetItem(_) => {
                self.chain(expr, Needed::Yes);
            }
            ast::Expr::Const(constant) => self.constant(&range_of(constant.span())),
            ast::Expr::Slice(slice) => {
                self.expr(&slice.expr);
                let parts = [&slice.start, &slice.stop, &slice.step];
                parts.into_iter().flatten().for_each(|part| self.expr(part));
            }
            ast::Expr::UnaryOp(unary) => self.expr(&unary.expr),
            ast::Expr::BinOp(binary) => self.binary(binary),
            ast::Expr::Compare(compare) => {
                self.expr(&compare.expr);
                compare.ops.iter().for_each(|op| self.expr(&op.expr));
            }
            ast::Expr::IfExpr(choice) => {
                self.expr(&choice.test_expr);
                self.sometimes(|walker| {
                    walker.expr(&choice.true_expr);
                    choice.false_expr.iter().for_each(|expr| walker.expr(expr));
                });
            }
            ast::Expr::Filter(filter) => {
                if let Some(expr) = &filter.expr {
                    self.operand(filter.name, expr);
                }
                let name = self.short(filter.name, range_of(filter.span()));
                self.found.filters.push(name);
                self.arguments(&filter.args);
            }
            ast::Expr::Test(test) => {
                self.operand(test.name, &test.expr);
                let name = self.short(test.name, range_of(test.span()));
                self.found.tests.push(name);
                self.arguments(&test.args);
            }
            ast::Expr::Call(call) => self.call(call),
            ast::Expr::List(list) => list.items.iter().for_each(|item| self.expr(item)),
            ast::Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.expr(item)),
            ast::Expr::Map(map) => {
                map.keys.iter().for_each(|key| self.expr(key));
                map.values.iter().for_each(|value| self.expr(value));
            }
        }
    }

    /// Notes a use of a name; false when the template sets the name itself.
    fn variable(&mut self, name: &str, range: Range<usize>) -> bool {
        let free = !self.scopes.iter().any(|scope| scope.contains(name));
        if free {
            self.found.variables.push(Named {
                name: name.to_owned(),
                range,
                always: self.always,
            });
        }
        free
    }

    fn binary(&mut self, binary: &ast::Spanned<ast::BinOp<'_>>) {
        self.expr(&binary.left);
        if matches!(binary.op, ast::BinOpKind::ScAnd | ast::BinOpKind::ScOr) {
            self.sometimes(|walker| walker.expr(&binary.right));
            return;
        }
        self.expr(&binary.right);
        let format = binary
            .left
            .as_const()
            .is_some_and(|left| left.as_str().is_some());
        if format && matches!(binary.op, ast::BinOpKind::Rem) {
            self.percent(&range_of(binary.left.span()), range_of(binary.span()).end);
        }
    }

    /// `'…' % value` → `__percent('…', value)`.
    fn percent(&mut self, left: &Range<usize>, end: usize) {
        let Some(sign) = self.text[left.end..end].find('%') else {
            return;
        };
        let sign = left.end + sign;
        self.edit(left.start..left.start, format!("{PERCENT}("));
        self.edit(sign..sign + 1, ",".to_owned());
        self.edit(end..end, ")".to_owned());
    }

    fn edit(&mut self, at: Range<usize>, with: String) {
        self.found.edits.push(Edit { at, with });
    }

    fn call(&mut self, call: &ast::Call<'_>) {
        if let ast::Expr::Var(var) = &call.expr {
            self.found.calls.insert(var.id.to_owned());
        }
        match &call.expr {
            // A method is no part of its value.
            ast::Expr::GetAttr(method) => self.expr(&method.expr),
            other => self.expr(other),
        }
        self.arguments(&call.args);
    }

    fn arguments(&mut self, arguments: &[ast::CallArg<'_>]) {
        for argument in arguments {
            match argument {
                ast::CallArg::Pos(expr)
                | ast::CallArg::Kwarg(_, expr)
                | ast::CallArg::PosSplat(expr)
                | ast::CallArg::KwargSplat(expr) => self.expr(expr),
            }
        }
    }

    /// Walks what a filter or test is applied to.
    fn operand(&mut self, applied: &str, expr: &ast::Expr<'_>) {
        if !guards(applied) {
            return self.expr(expr);
        }
        match chain_root(expr) {
            Some(root) => {
                self.found.guarded.insert(root.id.to_owned());
                self.loosen(expr);
                self.chain(expr, Needed::No);
            }
            None => self.expr(expr),
        }
    }

    /// A variable with the parts asked of it.
    fn chain(&mut self, expr: &ast::Expr<'_>, needed: Needed) {
        let mut ends = Vec::new();
        let mut at = expr;
        loop {
            ends.push(range_of(at.span()).end);
            at = match at {
                ast::Expr::GetAttr(attribute) => &attribute.expr,
                ast::Expr::GetItem(item) => {
                    self.expr(&item.subscript_expr);
                    &item.expr
                }
                _ => break,
            };
        }
        let ast::Expr::Var(var) = at else {
            return self.expr(at);
        };
        let range = range_of(var.span());
        if self.variable(var.id, range.clone()) && needed == Needed::Yes {
            ends.reverse();
            self.found.chains.push(Chain {
                start: range.start,
                ends,
            });
        }
    }

    /// Gives the backslashes of a string the meaning they have in Ansible.
    fn constant(&mut self, range: &Range<usize>) {
        let text = self.text.get(range.clone()).unwrap_or("");
        if !text.starts_with(['"', '\'']) {
            return;
        }
        let literal = self.form == Form::Template && self.in_braces;
        let mut at = 1;
        while let Some(offset) = text.get(at..).and_then(|rest| rest.find('\\')) {
            let start = at + offset;
            let escaped = text[start + 1..].chars().next().unwrap_or('\\');
            let known = if literal {
                "'\""
            } else {
                "'\"\\nrtbfux01234567"
            };
            if !known.contains(escaped) {
                let place = range.start + start;
                self.edit(place..place, "\\".to_owned());
            }
            at = start
                + 1
                + if literal && escaped == '\\' {
                    0
                } else {
                    escaped.len_utf8()
                };
        }
    }

    /// `a.b[c]` → `__chain(a, 'b', (c))`.
    fn loosen(&mut self, expr: &ast::Expr<'_>) {
        let Some(root) = chain_root(expr) else { return };
        let mut ends = Vec::new();
        let mut at = expr;
        while let ast::Expr::GetAttr(_) | ast::Expr::GetItem(_) = at {
            ends.push(range_of(at.span()).end);
            at = match at {
                ast::Expr::GetAttr(attribute) => &attribute.expr,
                ast::Expr::GetItem(item) => &item.expr,
                other => other,
            };
        }
        ends.reverse();
        let (Some(&last), root) = (ends.last(), range_of(root.span())) else {
            return;
        };
        self.edit(root.start..root.start, format!("{CHAIN}("));
        let mut start = root.end;
        for end in ends {
            self.link(start..end);
            start = end;
        }
        self.edit(last..last, ")".to_owned());
    }

    /// Turns one `.name`, `.0` or `[expression]` into a further argument.
    fn link(&mut self, range: Range<usize>) {
        let text = &self.text[range.clone()];
        let lead = range.start + text.len() - text.trim_start().len();
        match text.trim_start().strip_prefix('.') {
            Some(name)
                if name
                    .trim()
                    .starts_with(|first: char| first.is_ascii_digit()) =>
            {
                self.edit(range, format!(",{}", name.trim()));
            }
            Some(name) => self.edit(range, format!(",'{}'", name.trim())),
            None => {
                self.edit(lead..lead + 1, ",(".to_owned());
                self.edit(range.end - 1..range.end, ")".to_owned());
            }
        }
    }

    /// A filter or test under its short name, which it gets in the compiled text too.
    fn short(&mut self, name: &str, range: Range<usize>) -> Named {
        let range = self.name_before(name, range);
        let short = COLLECTIONS
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix));
        if let Some(short) = short
            && range.len() == name.len()
        {
            self.edit(range.clone(), short.to_owned());
        }
        Named {
            name: short.unwrap_or(name).to_owned(),
            range,
            always: self.always,
        }
    }

    /// Finds where the name of a filter or test stands in its expression's range.
    fn name_before(&self, name: &str, range: Range<usize>) -> Range<usize> {
        let text = self.text.get(range.clone()).unwrap_or("");
        let found = text
            .rmatch_indices(name)
            .map(|(start, _)| start)
            .find(|&start| start == 0 || text[..start].trim_end().ends_with(['|', 's', 't']));
        found.map_or_else(
            || range.clone(),
            |start| range.start + start..range.start + start + name.len(),
        )
    }
}

/// Returns the variable a chain of attributes and items begins with.
fn chain_root<'expr, 'text>(
    expr: &'expr ast::Expr<'text>,
) -> Option<&'expr ast::Spanned<ast::Var<'text>>> {
    match expr {
        ast::Expr::Var(var) => Some(var),
        ast::Expr::GetAttr(attribute) => chain_root(&attribute.expr),
        ast::Expr::GetItem(item) => chain_root(&item.expr),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn loosened(text: &str, form: Form) -> String {
        let analysis = analyse(text, form).expect("it parses");
        analysis.loosened(text, 0..text.len()).0
    }

    #[test]
    fn guarded_chains_become_calls() {
        assert_eq!(
            loosened("a.b['c'].0[d.e] | default(x.y)", Form::Expression),
            "__chain(a,'b',('c'),0,(d.e)) | default(x.y)"
        );
        assert_eq!(
            loosened("{{ a.b is defined and a.b.c }}", Form::Template),
            "{{ __chain(a,'b') is defined and a.b.c }}"
        );
        assert_eq!(
            loosened("hostvars[h[0].x | d(1)].y is undefined", Form::Expression),
            "__chain(hostvars,(__chain(h,(0),'x') | d(1)),'y') is undefined"
        );
        assert_eq!(
            loosened("a | default(1)", Form::Expression),
            "a | default(1)"
        );
    }

    #[test]
    fn percent_formatting_becomes_a_call() {
        assert_eq!(
            loosened("'%s-%d' % (a, 3)", Form::Expression),
            "__percent('%s-%d' , (a, 3))"
        );
    }

    #[test]
    fn offsets_lead_back_to_what_was_typed() {
        let text = "a.b | default(x) ~ foo";
        let analysis = analyse(text, Form::Expression).expect("it parses");
        let (new, map) = analysis.loosened(text, 0..text.len());
        let at = new.find("foo").expect("kept");
        assert_eq!(&text[map.back(at..at + 3)], "foo");
        let at = new.find("'b'").expect("made");
        assert!(text[map.back(at..at + 3)].contains('b'));
    }

    #[test]
    fn own_names_are_not_asked_for() {
        let text = "{% set a = b %}{% for c in d %}{{ c }}{{ loop.index }}{{ e }}{% endfor %}{{ a }}{{ c }}";
        let analysis = analyse(text, Form::Template).expect("it parses");
        let names: Vec<_> = analysis
            .variables
            .iter()
            .map(|used| used.name.as_str())
            .collect();
        assert_eq!(names, ["b", "d", "e", "c"]);
        assert!(!analysis.variables[2].always);
    }

    #[test]
    fn filters_and_tests_are_found_where_they_stand() {
        let text = "foo | uper is strng";
        let analysis = analyse(text, Form::Expression).expect("it parses");
        assert_eq!(&text[analysis.filters[0].range.clone()], "uper");
        assert_eq!(&text[analysis.tests[0].range.clone()], "strng");
    }

    #[test]
    fn a_template_of_one_expression_keeps_its_type() {
        let single = |text: &str| analyse(text, Form::Template).expect("it parses").single;
        assert_eq!(single("{{ 3 }}"), Some(3..4));
        assert_eq!(single("{{ 3 }}\n"), Some(3..4));
        assert_eq!(single("{{- x.y -}}"), Some(4..7));
        assert_eq!(single("{# c #}{{ 3 }}"), Some(10..11));
        assert_eq!(single(" {{ 3 }}"), None);
        assert_eq!(single("{{ 3 }}\n\n"), None);
        assert_eq!(single("{{ a }}{{ b }}"), None);
    }

    #[test]
    fn a_syntax_error_has_its_range() {
        let text = "a {{ foo | }} b";
        let problem = analyse(text, Form::Template).expect_err("broken");
        assert!(problem.range.start >= 9, "{problem:?}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z.{}%|\\[\\]() '0-9é]{0,60}") {
            for form in [Form::Template, Form::Expression] {
                if let Ok(analysis) = analyse(&text, form) {
                    let (new, map) = analysis.loosened(&text, 0..text.len());
                    for at in 0..=new.len() {
                        prop_assert!(map.back(at..at).end <= text.len());
                    }
                    let again = analyse(&new, form);
                    prop_assert!(again.is_ok(), "{new}: {again:?}");
                }
            }
        }
    }
}
