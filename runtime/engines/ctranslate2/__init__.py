"""The CTranslate2 engine and a strict reader of its model files."""
