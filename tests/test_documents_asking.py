"""Asking documents: what the model is given, what it says, and what a user sees."""


def test_scratch(models, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "kettle.md").write_text("# Kettle\n\n## Descaling\n\nFill it with vinegar and boil it.\n\nRinse twice.\n")
    m = models["lfm2.5"]
    a = m.ask("How is the kettle descaled?", documents=docs, max_new_tokens=20)
    print([p for p in a])
    print(a)
    a = m.ask("How is the kettle descaled?", documents=docs, max_new_tokens=20, aloud=True)
    print([type(p) for p in a], a.audio_seconds)
    print(m.ask("Who won the cup in Brazil?", documents=docs).finished())
    print(m.manifest.model.backbone.max_positions)
