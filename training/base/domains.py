"""The walks of life that invented organisations belong to."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Domain:
    """A kind of organisation, what its customers hold, and which attributes are talked about."""

    name: str
    organisations: tuple[str, ...]
    items: tuple[str, ...]
    labels: tuple[str, ...]


GOODS = (
    "warranty,return window,delivery time,repair time,price,shipping"
    " fee,discount,contact,colour,material,size,spare part,first step,care"
    " advice,exchange,reference code,e-mail address,phone number,person in charge,pick-up"
    " point,battery life,weight limit"
)
EVENTS = (
    "length,price,discount,start time,meeting day,deadline,location,booking channel,person in"
    " charge,reference code,notice period,contact,e-mail address,phone number,deposit,plan"
)
PLACES = (
    "opening hours,closing time,location,contact,person in charge,phone number,e-mail"
    " address,price,booking channel,pets,notice period,discount"
)
STAYS = (
    "price,check-in time,notice period,deposit,breakfast,pets,size,location,booking"
    " channel,contact,discount,plan,person in charge"
)
LOANS = (
    "loan period,late fee,deposit,pick-up point,booking channel,contact,reference code,notice"
    " period,person in charge,location"
)


def _d(name: str, organisations: str, items: str, labels: str) -> Domain:
    """Build a domain from comma-separated lists."""
    return Domain(
        name,
        tuple(organisations.split(",")),
        tuple(items.split(",")),
        tuple(dict.fromkeys(labels.split(","))),
    )


DOMAINS = (
    _d(
        "kitchen",
        "kitchen maker,cookware company,appliance maker",
        "kettle,toaster,blender,mixer,oven,freezer,coffee maker,rice"
        " cooker,juicer,grill,dishwasher",
        GOODS,
    ),
    _d(
        "garden",
        "garden supplier,tool maker,garden centre",
        "mower,hedge trimmer,sprayer,shovel,greenhouse,water pump,leaf"
        " blower,rake,wheelbarrow,tent",
        GOODS,
    ),
    _d(
        "furniture",
        "furniture company,workshop,sofa maker",
        "chair,table,sofa,wardrobe,bed,desk,bookcase,mattress,stool,bench,cabinet",
        GOODS,
    ),
    _d(
        "sports",
        "sports shop,bicycle maker,outdoor company",
        "bicycle,tent,backpack,helmet,racket,treadmill,kayak,ski boots,scooter,sleeping bag",
        GOODS,
    ),
    _d(
        "electronics",
        "electronics company,gadget maker,device support desk",
        "phone,tablet,laptop,monitor,printer,camera,router,watch,headset,keyboard,projector,speaker,lamp,charger",
        GOODS,
    ),
    _d(
        "fashion",
        "shoe company,clothing shop,tailor",
        "coat,boots,jacket,dress,scarf,hat,bag,belt,sandals,gloves,suit",
        GOODS,
    ),
    _d(
        "music",
        "instrument maker,music shop",
        "guitar,piano,violin,drum,flute,amplifier,microphone,trumpet,turntable",
        GOODS,
    ),
    _d(
        "toys",
        "toy maker,games company",
        "puzzle,doll,robot,train set,board game,kite,drone,building kit,ball",
        GOODS,
    ),
    _d(
        "software",
        "software company,app maker,cloud service",
        "app,account,backup plan,licence,mail box,editor,cloud drive,website plan,game",
        GOODS.replace("repair time", "notice period") + ",plan",
    ),
    _d(
        "car hire",
        "car rental,van hire,bike hire",
        "van,car,minibus,trailer,motorbike,bicycle,camper",
        LOANS + ",price,weight limit,discount",
    ),
    _d(
        "library",
        "public library,school library,media centre",
        "book,magazine,film,audio book,map,study room,laptop,music score,board game,atlas",
        LOANS,
    ),
    _d(
        "hotel",
        "hotel,guest house,hostel,holiday park",
        "single room,double room,suite,cabin,apartment,meeting room,tent site,family room",
        STAYS,
    ),
    _d(
        "clinic",
        "clinic,dental practice,health centre,vet",
        "check-up,blood test,vaccination,eye test,x-ray,massage,consultation,therapy session",
        EVENTS,
    ),
    _d(
        "school",
        "language school,evening school,college,music school",
        "course,workshop,exam,lesson,summer class,seminar,training,lecture",
        EVENTS,
    ),
    _d(
        "museum",
        "museum,gallery,zoo,science centre",
        "tour,exhibition,garden,tower,cinema,shop,café,aquarium,reading room",
        PLACES,
    ),
    _d(
        "airline",
        "airline,ferry line,bus company,railway",
        "ticket,economy fare,day pass,night train,upgrade,group ticket,cabin bag,city"
        " pass,transfer",
        "price,notice period,weight limit,check-in time,booking"
        " channel,contact,discount,exchange,deadline,pets,late fee,location",
    ),
    _d(
        "city",
        "city office,town hall,citizen service",
        "permit,passport,parking card,registration,market stall,licence,certificate,garden plot",
        "price,deadline,location,opening hours,booking channel,contact,person in charge,delivery"
        " time,reference code,late fee,pick-up point",
    ),
    _d(
        "gym",
        "gym,swimming pool,climbing hall,yoga studio",
        "yoga class,sauna,membership,pool,climbing wall,training plan,locker,spin class",
        EVENTS + ",opening hours",
    ),
    _d(
        "bank",
        "bank,insurance,savings club",
        "card,savings plan,loan,account,travel policy,home policy,transfer,pension plan",
        "price,notice period,discount,contact,booking channel,person in charge,phone"
        " number,deadline,delivery time,plan,reference code,late fee",
    ),
    _d(
        "food",
        "bakery,restaurant,caterer,farm shop",
        "cake,menu,vegetable box,lunch,picnic basket,pizza,soup,breakfast,cheese plate",
        "price,delivery time,contact,booking channel,discount,deadline,start time,closing"
        " time,size,pick-up point,shipping fee,person in charge",
    ),
    _d(
        "utilities",
        "power company,water works,telephone company,internet provider",
        "meter,contract,tariff,modem,connection,mobile plan,solar panel,heater",
        GOODS.replace("colour,material,", "") + ",notice period,plan",
    ),
    _d(
        "post",
        "courier,postal service,moving company",
        "parcel,letter,express parcel,pallet,move,registered letter,mail box",
        "price,delivery time,weight limit,contact,pick-up point,reference"
        " code,deadline,discount,late fee,size",
    ),
)
