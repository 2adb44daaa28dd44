"""Given and family names as Egyptian registers, passports and worklists spell them: Arabic first, then Latin ways."""

from __future__ import annotations

NAMES: tuple[tuple[str, ...], ...] = tuple(
    tuple(line.strip().split(", "))
    for line in """
محمد, Mohamed, Muhammad, Mohammed, Mohamad
أحمد, احمد, Ahmed, Ahmad
محمود, Mahmoud, Mahmood, Mahmud
مصطفى, مصطفي, Mostafa, Mustafa, Moustafa
علي, على, Ali, Aly
حسن, Hassan, Hasan
حسين, Hussein, Hussain, Hossein, Hosein
إبراهيم, ابراهيم, Ibrahim, Ebrahim, Ibraheem
السيد, Elsayed, El-Sayed, El Sayed, Al-Sayed
سعيد, Saeed, Said, Saied
سعد, Saad
عبد الله, عبدالله, Abdallah, Abdullah, Abdalla
عبد الرحمن, عبدالرحمن, Abdelrahman, Abdel Rahman, Abdul-Rahman
عبد العزيز, Abdelaziz, Abd El Aziz, Abdul Aziz
عبد الفتاح, Abdelfattah, Abdel Fatah, Abd El-Fattah
عبد المنعم, Abdelmonem, Abdel Moneim
عبد الحميد, Abdelhamid, Abdel Hameed
عبد العال, Abdelaal, Abd El Aal
عبده, Abdo, Abdou
خالد, Khaled, Khalid
عمر, Omar, Omer, Umar
عمرو, Amr, Amro
عثمان, Othman, Osman, Uthman
أسامة, اسامه, Osama, Ossama, Usama
طارق, Tarek, Tareq, Tariq
هشام, Hesham, Hisham
حسام, Hossam, Hosam, Hussam
وليد, Walid, Waleed
وائل, Wael, Wail
ياسر, Yasser, Yaser, Yasir
يوسف, Youssef, Yousef, Yusuf, Yosef
يحيى, Yehia, Yahya, Yehya
جمال, Gamal, Jamal
مجدي, Magdy, Magdi, Majdi
ماجد, Maged, Majed, Majid
رجب, Ragab, Rajab
جابر, Gaber, Jaber, Gabir
نجوى, Nagwa, Najwa
جيهان, Gehan, Jihan, Gihan
جهاد, Gehad, Jihad
قاسم, Kassem, Qasem, Qassim
عبد القادر, Abdelkader, Abdel Qader, Abdul Qadir
صادق, Sadek, Sadiq, Sadeq
توفيق, Tawfik, Tewfik, Toufic, Tawfiq
شوقي, Shawky, Shawki, Shawqi
فاروق, Farouk, Farouq, Faruk
مرزوق, Marzouk, Marzouq
شريف, Sherif, Sharif, Cherif
أشرف, Ashraf, Achraf
شيماء, Shaimaa, Shimaa, Chaimaa
هشام, Hesham, Hicham
رشا, Rasha
عائشة, Aisha, Aysha, Aicha
فاطمة, فاطمه, Fatma, Fatima, Fatimah, Fatema
خديجة, Khadija, Khadiga, Khadeja
سارة, Sara, Sarah
سميرة, Samira, Sameera
سمير, Samir, Sameer
سمر, Samar
منى, Mona, Muna, Mouna
مينا, Mina, Mena
مريم, Mariam, Maryam, Meriem
مروة, Marwa
مروان, Marwan
نور, Nour, Noor, Nur
نورهان, Nourhan, Norhan
نور الدين, Noureldin, Nour El-Din, Nur Eldeen
صلاح الدين, Salaheldin, Salah El Din, Salah Eldeen
علاء الدين, Alaaeldin, Alaa El-Din
صلاح, Salah
ممدوح, Mamdouh, Mamdoh
رضا, Reda, Rida
رأفت, Raafat, Rafat
عاطف, Atef, Atif
عصام, Essam, Esam, Issam
عماد, Emad, Imad
عادل, Adel, Adil
إيمان, ايمان, Eman, Iman
إسلام, Eslam, Islam
إسماعيل, Ismail, Esmail, Ismaeel
إسحاق, Ishak, Ishaq, Eshak
أميرة, Amira, Ameera
أمين, Amin, Ameen
أيمن, Ayman, Aiman
آية, Aya, Ayah
إلهام, Elham, Ilham
إلياس, Elias, Elyas
العربي, Elaraby, El-Araby, Al Araby
الجوهري, Elgohary, El Gohary, Al-Gohari
القاضي, Elkady, El-Kadi, Al Qadi
الشناوي, Elshenawy, El Shennawy, El-Shinnawi
طنطاوي, Tantawy, Tantawi
بيومي, Bayoumi, Bayoumy
بسيوني, Bassiouny, Bassiouni, Basiony
دسوقي, Desouky, Dessouki, Desoky
متولي, Metwally, Metwaly, Metwalli
سليمان, Soliman, Suleiman, Sulaiman
عاشور, Ashour, Ashoor
منصور, Mansour, Mansoor
يعقوب, Yacoub, Yakoub, Yaqoub
بطرس, Botros, Boutros
جرجس, Gerges, Girgis
ميخائيل, Mikhail, Mikhael
كيرلس, Kyrillos, Kerolos, Kirollos
مرقس, Morcos, Morkos
نيفين, Nevin, Neveen, Nevine
ميرفت, Mervat, Mirvat
كريستين, Christine, Kristin
تغريد, Taghreed, Taghrid
غادة, Ghada
غريب, Gharib, Ghareeb
رغدة, Raghda, Ragda
ثروت, Tharwat, Sarwat
ثريا, Soraya, Thoraya
ذكي, Zaki, Zaky
زينب, Zeinab, Zainab, Zaynab
زكريا, Zakaria, Zakariya
ضياء, Diaa, Diaa
دعاء, Doaa, Duaa
مدحت, Medhat, Midhat
أدهم, Adham
بهاء, Bahaa, Baha
فتحي, Fathy, Fathi
فتحية, Fathia, Fatheya
حنان, Hanan
هانم, Hanem, Hanim
هناء, Hanaa, Hana
هبة, Heba, Hiba
هند, Hend, Hind
هدى, Hoda, Huda
نهى, Noha, Nuha
مها, Maha
طه, Taha
سهير, Soheir, Suhair
سحر, Sahar
سعاد, Souad, Soad, Suad
حمدي, Hamdy, Hamdi
حمادة, Hamada, Hamadah
حمودة, Hamouda, Hammouda
أبو زيد, Abou Zeid, Abouzeid, Abo Zaid
أبو العلا, Abou El Ela, Abouelela, Aboul Ela
لؤي, Loay, Louay, Luay
معتز, Moataz, Motaz
ظافر, Zafer, Zafir
عبد العظيم, Abdelazim, Abdel Azeem
ليلى, Laila, Layla, Leila
رانيا, Rania, Raniya
بسمة, Basma, Bassma
شهد, Shahd, Shahad
""".strip().splitlines()
)
