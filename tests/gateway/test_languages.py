import pytest

from gateway.languages import language_of

SAID = {
    "en": "How do I find out where the man lives, and what is that to you?",
    "de": "Wie finde ich heraus, wo der Mann wohnt, und was ist das für eine Frage?",
    "fr": "Comment est-ce que je trouve où habite le monsieur, et pour qui est la lettre ?",
    "es": "¿Cómo puedo saber dónde vive el señor y por qué no está en la casa?",
    "it": "Come posso sapere dove abita il signore e perché non è in casa con la moglie?",
    "pt": "Como posso saber onde mora o senhor e por que ele não está em casa com você?",
    "nl": "Hoe kom ik erachter waar die man woont en wat kan ik voor je doen?",
    "sv": "Hur kan jag ta reda på var den mannen bor och vad är det som är fel med honom?",
    "pl": "Jak to jest, że nie można się do niego dodzwonić i co z tym zrobić?",
    "tr": "Bu adam nerede oturuyor ve ne için bir mektup yazdı, çok merak ettim?",
    "id": "Bagaimana cara saya menemukan rumah itu dan apa yang bisa kamu lakukan untuk saya?",
    "vi": "Làm thế nào để tôi biết người đàn ông này sống ở đâu và không làm phiền bạn?",
    "ru": "Как мне узнать, где живёт этот человек?",
    "el": "Πώς μπορώ να μάθω πού μένει αυτός ο άνθρωπος;",
    "he": "איך אני יכול לגלות איפה האיש הזה גר?",
    "ar": "كيف يمكنني معرفة مكان إقامة هذا الرجل؟",
    "hi": "मैं कैसे पता करूँ कि यह आदमी कहाँ रहता है?",
    "ja": "この人がどこに住んでいるのか、どうすれば分かりますか。",
    "zh": "我怎样才能知道这个人住在哪里?",
    "ko": "이 사람이 어디에 사는지 어떻게 알 수 있나요?",
    "th": "ฉันจะรู้ได้อย่างไรว่าชายคนนี้อาศัยอยู่ที่ไหน",
}


@pytest.mark.parametrize(("language", "text"), SAID.items(), ids=SAID)
def test_a_sentence_tells_its_language(language: str, text: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize("text", ["", "12 + 7 = 19", "🙂🙂", "zxcv qwer asdf", "ok", "\ud83d"])
def test_where_nothing_speaks_for_one_none_is_said(text: str) -> None:
    assert language_of(text) is None
