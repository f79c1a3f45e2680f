"""What the server itself says to a user, in the user's language. Data alone, but for filling it in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_NOTHING_FOUND: Final = {
    "en": "I found nothing about this. I searched: {folders}.",
    "ko": "이에 대한 내용을 찾지 못했어요. 찾아본 곳: {folders}.",
    "ja": "これについては何も見つかりませんでした。検索した場所：{folders}。",
    "zh": "没有找到与此相关的内容。搜索范围：{folders}。",
    "de": "Dazu habe ich nichts gefunden. Durchsucht: {folders}.",
    "fr": "Je n'ai rien trouvé à ce sujet. Recherché dans : {folders}.",
    "es": "No he encontrado nada sobre esto. Busqué en: {folders}.",
    "pl": "Nie znalazłem nic na ten temat. Przeszukano: {folders}.",
    "tr": "Bununla ilgili bir şey bulamadım. Aranan yer: {folders}.",
    "vi": "Tôi không tìm thấy gì về điều này. Đã tìm trong: {folders}.",
    "ru": "Я ничего об этом не нашёл. Где искал: {folders}.",
    "el": "Δεν βρήκα τίποτα σχετικό. Έψαξα σε: {folders}.",
    "he": "לא מצאתי דבר בנושא הזה. חיפשתי ב: {folders}.",
    "ar": "لم أجد شيئًا عن هذا. بحثت في: {folders}.",
    "hi": "मुझे इसके बारे में कुछ नहीं मिला। यहाँ खोजा: {folders}।",
    "th": "ไม่พบข้อมูลเกี่ยวกับเรื่องนี้ ค้นหาใน: {folders}",
}
_HARDLY_SPEAKS: Final = {
    "en": "The model {model} hardly speaks English (as much text takes it {ratio} times as many "
    "tokens as its best language). "
    "Good answers need another model, set by whoever runs this server, such as {remedy}.",
    "ko": "{model} 모델은 한국어를 거의 하지 못해요(같은 양의 글에 영어보다 토큰을 {ratio}배 씁니다). "
    "좋은 답을 얻으려면 서버 관리자가 {remedy} 같은 다른 모델로 바꿔야 해요.",
    "ja": "モデル {model} は日本語がほとんどできません（同じ量の文章に英語の{ratio}倍のトークンを使います）。"
    "よい回答には、サーバーの管理者が {remedy} のような別のモデルを設定する必要があります。",
    "zh": "模型 {model} 几乎不会中文（同样长的文字要用英文 {ratio} 倍的词元）。"
    "要得到好的回答，需要由服务器管理员换用其他模型，例如 {remedy}。",
    "de": "Das Modell {model} kann kaum Deutsch (gleich viel Text braucht {ratio}-mal so viele "
    "Token wie auf Englisch). "
    "Für gute Antworten braucht es ein anderes Modell, etwa {remedy}; das stellt ein, wer diesen Server betreibt.",
    "fr": "Le modèle {model} parle à peine le français (à longueur égale, {ratio} fois plus de jetons qu'en anglais). "
    "Pour de bonnes réponses, l'administrateur du serveur doit choisir un autre modèle, par exemple {remedy}.",
    "es": "El modelo {model} apenas habla español (para un texto igual de largo, {ratio} veces más "
    "tokens que en inglés). "
    "Para tener buenas respuestas, quien administra el servidor debe elegir otro modelo, por ejemplo {remedy}.",
    "pl": "Model {model} prawie nie zna polskiego (równie długi tekst to {ratio} razy więcej "
    "tokenów niż po angielsku). "
    "Dobre odpowiedzi da inny model, na przykład {remedy}; ustawia go administrator serwera.",
    "tr": "{model} modeli Türkçeyi neredeyse hiç bilmiyor (İngilizcenin {ratio} katı belirteç harcıyor). "
    "İyi yanıtlar için sunucuyu yönetenin {remedy} gibi başka bir model seçmesi gerekir.",
    "vi": "Mô hình {model} hầu như không biết tiếng Việt (cần gấp {ratio} lần số token so với tiếng Anh). "
    "Muốn có câu trả lời tốt, người quản trị máy chủ cần chọn mô hình khác, chẳng hạn {remedy}.",
    "ru": "Модель {model} почти не знает русского (ей нужно в {ratio} раза больше токенов, чем на английском). "
    "Для хороших ответов администратору сервера нужно выбрать другую модель, например {remedy}.",
    "el": "Το μοντέλο {model} σχεδόν δεν ξέρει ελληνικά (χρειάζεται {ratio} φορές περισσότερα tokens από τα αγγλικά). "
    "Για καλές απαντήσεις ο διαχειριστής του διακομιστή χρειάζεται να ορίσει άλλο μοντέλο, όπως το {remedy}.",
    "he": "המודל {model} כמעט אינו יודע עברית (הוא צורך פי {ratio} אסימונים מאשר באנגלית). "
    "לתשובות טובות על מנהל השרת לבחור מודל אחר, למשל {remedy}.",
    "ar": "النموذج {model} بالكاد يعرف العربية (يحتاج إلى {ratio} أضعاف الرموز مقارنة بالإنجليزية). "
    "للحصول على إجابات جيدة يجب أن يختار مشرف الخادم نموذجًا آخر مثل {remedy}.",
    "hi": "मॉडल {model} हिन्दी लगभग नहीं जानता (अंग्रेज़ी से {ratio} गुना टोकन लेता है)। "
    "अच्छे उत्तरों के लिए सर्वर के प्रबंधक को {remedy} जैसा दूसरा मॉडल चुनना होगा।",
    "th": "โมเดล {model} แทบไม่รู้ภาษาไทย (ใช้โทเค็นมากกว่าภาษาอังกฤษ {ratio} เท่า) "
    "หากต้องการคำตอบที่ดี ผู้ดูแลเซิร์ฟเวอร์ต้องเลือกโมเดลอื่น เช่น {remedy}",
}


def nothing_found(language: str, folders: Sequence[str]) -> str:
    """`folders`: those that were searched."""
    return _NOTHING_FOUND.get(language, _NOTHING_FOUND["en"]).format(folders=", ".join(folders))


def hardly_speaks(language: str, model: str, ratio: float, remedy: str) -> str:
    """`ratio`: tokens for what takes one in the language that the model knows best."""
    template = _HARDLY_SPEAKS.get(language, _HARDLY_SPEAKS["en"])
    return template.format(model=model, ratio=f"{ratio:.1f}", remedy=remedy)
