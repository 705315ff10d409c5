"""The table of cards."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """The first one."""

    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Card",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("board", models.SlugField()),
                ("column", models.CharField(max_length=10)),
                ("rank", models.FloatField()),
                ("title", models.CharField(max_length=200)),
            ],
            options={"ordering": ("rank",)},
        ),
    )
