"""From the steps as they are written (`lesson_model`) to values (`lesson_values`), and what must hold beyond shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from testbed.scenario.check import Known
from testbed.scenario.errors import Mistake, nearest, one_of
from testbed.scenario.lesson_model import FORMS, ConditionModel, StepModel
from testbed.scenario.lesson_values import OTHERWISE, Choice, Condition, Show, Step
from testbed.scenario.tree import Located
from testbed.scenario.values import CLIENT_TUN, SERVER_OBSERVER


def resolve_lesson(steps: Iterable[StepModel]) -> tuple[Step, ...]:
    """The steps as values, their paragraphs without the file's line breaks."""
    return tuple(
        Step(
            title=step.title,
            text=_paragraphs(step.text),
            ask=_paragraphs(step.ask),
            choices=tuple(
                Choice(choice.says, _condition(choice.right, step), _paragraphs(choice.but)) for choice in step.choices
            ),
            shows=tuple(
                Show(show.variant, show.what, show.observer, show.action, show.protocol, show.has, show.most)
                for show in step.show
            ),
            explain=_paragraphs(step.explain),
        )
        for step in steps
    )


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n") if part.strip())


def _condition(model: ConditionModel | str | None, step: StepModel) -> Condition | str | None:
    if model is None or isinstance(model, str):
        return model
    form = next(form for form in FORMS if getattr(model, form) is not None)
    return Condition(
        form=form,
        value=getattr(model, form),
        variant=model.variant or (model.larger if form == "larger" and model.larger else step.show[0].variant),
        observer=model.observer or step.show[0].observer,
        site=model.site,
        action=model.action,
        protocol=model.protocol,
        has=model.has,
        than=model.than or "",
        equals=model.equals or "",
    )


def check_lesson(steps: Iterable[StepModel], tree: Located, variants: Mapping[str, Known]) -> Iterator[Mistake]:
    """Every step speaks of variants, observers and actions that there are, and one of its answers can be right."""
    for number, step in enumerate(steps):
        place = tree.at("lesson", number)
        for index, show in enumerate(step.show):
            yield from _check_place(place.at("show", index), show.variant, show.observer, show.action, variants)
        for index, choice in enumerate(step.choices):
            if isinstance(choice.right, ConditionModel):
                yield from _check_condition(place.at("choices", index, "right"), choice.right, step, variants)
        if all(choice.right is None for choice in step.choices):
            yield place.at("choices").mistake("no answer can ever be right; give one of them `right: …`")
        if sum(choice.right == OTHERWISE for choice in step.choices) > 1:
            yield place.at("choices").mistake("`right: otherwise` can stand once only")


def _check_condition(
    place: Located, model: ConditionModel, step: StepModel, variants: Mapping[str, Known]
) -> Iterator[Mistake]:
    forms = [form for form in FORMS if getattr(model, form) is not None]
    if len(forms) != 1:
        yield place.mistake(f"must have exactly one of {', '.join(FORMS)}; it has {', '.join(forms) or 'none'}")
        return
    if forms[0] == "field" and ((model.equals is None and model.has is None) or "/" not in (model.field or "")):
        yield place.mistake("a field is LAYER/FIELD, and `is: TEXT` or `has: TEXT` says what it must be or contain")
    if forms[0] in ("field", "layer") and all(show.what != "packet" for show in step.show):
        yield place.mistake("this step shows no packet whose fields could be looked at")
    if forms[0] == "egress" and not model.site:
        yield place.mistake("say which `site` the client sends to")
    if forms[0] == "larger" and not model.than:
        yield place.mistake("say `than` which variant")
    for name in filter(None, (model.larger, model.than)):
        yield from _check_place(place, name, model.observer or "isp", None, variants)
    variant = model.variant or model.larger or step.show[0].variant
    yield from _check_place(place, variant, model.observer or step.show[0].observer, model.action, variants)


def _check_place(
    place: Located, variant: str, observer: str, action: str | None, variants: Mapping[str, Known]
) -> Iterator[Mistake]:
    known = variants.get(variant)
    if known is None:
        yield place.at("variant").mistake(f"no such variant: {variant}; {one_of(variants)}{nearest(variant, variants)}")
        return
    observers = (*known.taps, CLIENT_TUN)
    if observer not in observers and not observer.startswith(SERVER_OBSERVER):
        yield place.at("observer").mistake(f"no such observer: {observer}; {one_of(observers)}")
    if action is not None and action not in known.actions:
        yield place.at("action").mistake(f"no such action: {action}; {one_of(known.actions)}")
